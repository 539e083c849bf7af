"""`forgery-det matrix` on tiny images: trains what is missing, reuses what exists, goes on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.cli import main
from forgery_det.cli import matrix as command
from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest
from synth.images import checkered_image, smooth_image

KINDS = {"camera": ("camera", "unknown"), "sd-1": ("diffusion", "vae"), "janus-1": ("mllm", "vq")}
OPTIONS = (
    '{"model.detector_args": {"backbone": "test_resnet", "backbone_weights": null, "image_size_px": 48}, '
    '"trainer.max_epochs": 2, "data.batch_size": 16}'
)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """12 images of each kind in each split; a generated image has a grid."""
    root, rows = tmp_path / "data", []
    for number in range(108):
        split, kind = ("train", "val", "test")[number % 3], list(KINDS)[number // 3 % 3]
        paradigm, decoder = KINDS[kind]
        pixels = (smooth_image if kind == "camera" else checkered_image)(number, 48, 48)
        data = encode_image(pixels, "png", None)
        image_id = sha256_bytes(data)
        write_bytes(root / f"images/{image_id}.png", data)
        rows.append(
            {
                "image_id": image_id, "path": f"images/{image_id}.png", "label": int(kind != "camera"),
                "generator": kind, "paradigm": paradigm, "decoder": decoder, "source": "synthetic",
                "source_id": f"scene:{number}", "width_px": 48, "height_px": 48, "codec": "png", "licence": "CC0-1.0",
                "split": split, "recipe": "synthetic",
            }
        )  # fmt: skip
    Manifest.from_rows(rows, root).write()
    return root


def words(dataset: Path, out: Path) -> list[str]:
    return [
        "matrix", str(dataset), "--out", str(out), "--leave_out", "paradigm", "--n_replicates", "40",
        "--fit_options", OPTIONS,
    ]  # fmt: skip


@pytest.mark.slow
def test_the_matrix_resumes_and_trains_nothing_twice(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "matrix"
    evaluate, calls = command.run_evaluate, []

    def interrupted(checkpoint: Path, *arguments: Any, **options: Any) -> Path:
        calls.append(checkpoint)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(checkpoint, *arguments, **options, gallery_size=1, protocols={})

    monkeypatch.setattr(command, "run_evaluate", interrupted)
    assert main(words(dataset, out)) == 130
    first, second = sorted(path.parent.parent for path in out.glob("runs/*/checkpoints/best.ckpt"))
    assert not (out / "results.parquet").exists()
    trained = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/checkpoints/best.ckpt")}
    assert main(words(dataset, out)) == 0
    # the first was evaluated before the interruption, the second only trained
    assert [checkpoint.parent.parent for checkpoint in calls[2:]] == [second, *{*_runs(out)} - {first, second}]
    assert {path: path.stat().st_mtime_ns for path in trained} == trained

    results = pl.read_parquet(out / "results.parquet")
    cells = results.filter(pl.col("metric") == "auroc")
    assert cells.height == 3 * 2
    note = cells.filter(pl.col("slice") == "trained=without mllm,tested=paradigm:mllm")["note"].item()
    assert note.startswith("held out")
    assert (cells["value"] > 0.5).all()
    assert "[3/3] trained: without mllm" in capsys.readouterr().out
    # one file of features for each split, whatever was left out
    assert len(list((out / "features").iterdir())) == 2

    before = (out / "results.parquet").read_bytes(), (out / "matrix.html").read_bytes()
    assert main(words(dataset, out)) == 0
    assert len(calls) == 4
    assert ((out / "results.parquet").read_bytes(), (out / "matrix.html").read_bytes()) == before


def _runs(out: Path) -> list[Path]:
    return sorted((out / "runs").iterdir())


def test_wrong_plans_are_bad_usage(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(dataset), "--out", str(tmp_path / "m")]) == 2
    assert "Expected either `leave_out` or `train_on`, got neither." in capsys.readouterr().err
    assert main(["matrix", str(dataset), "--out", str(tmp_path / "m"), "--leave_out", "colour"]) == 2
