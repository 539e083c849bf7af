"""The whole path through the command line, on seeded images: collect, audit, fit, evaluate, predict."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest

from forgery_det.cli import main
from forgery_det.core.manifest import Manifest
from synth.images import folder_sources, write_images, write_recipe

BACKBONE = '{"backbone": "test_resnet", "backbone_weights": null, "image_size_px": 48}'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `dataset/` and `run/`, made by the commands a user types."""
    root = tmp_path_factory.mktemp("job")
    write_images(root / "images/real", 40, generated=False)
    write_images(root / "images/fake", 40, generated=True)
    recipe = write_recipe(root / "recipe.yaml", folder_sources(root / "images"))
    dataset, folder = str(root / "dataset"), str(root / "run")
    assert main(["collect", str(recipe), "--out", dataset]) == 0
    assert main(["audit", dataset]) in (0, 1)
    fit = ["fit", "--run.out", folder, "--data.dataset", dataset, "--model.detector_args", BACKBONE]
    assert (
        main([*fit, "--trainer.max_epochs", "8", "--model.optimizer.lr", "0.05", "--trainer.accelerator", "cpu"]) == 0
    )
    checkpoint = f"{folder}/checkpoints/best.ckpt"
    assert main(["evaluate", checkpoint, dataset, "--out", folder, "--audit", dataset, "--n_replicates", "100"]) == 0
    return root


def test_run_folder_has_what_the_design_says(run: Path) -> None:
    names = {path.name for path in (run / "run").iterdir()}
    expected = {
        "predictions.parquet",
        "results.parquet",
        "run.json",
        "report.html",
        "report.md",
        "figures",
        "checkpoints",
    }
    assert expected <= names
    record = json.loads((run / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["manifest_hash"] == Manifest.load(run / "dataset").digest()
    results = pl.read_parquet(run / "run" / "results.parquet")
    overall = results.filter(pl.col("slice") == "overall", pl.col("metric") == "auroc").row(0, named=True)
    assert overall["ci_low"] <= overall["value"] <= overall["ci_high"]
    assert overall["value"] > 0.8
    page = (run / "run" / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page.replace("https://www.w3.org", "")


def test_predict_scores_what_it_can_and_names_the_rest(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.jpg").write_text("not an image")
    paths = [
        str(run / "images/real"),
        str(tmp_path / "broken.jpg"),
        str(run / "images/fake/0000*.jpeg"),
        "/nowhere.png",
    ]
    checkpoint = str(run / "run/checkpoints/best.ckpt")
    capsys.readouterr()
    assert main(["predict", checkpoint, *paths, "--format", "csv"]) == 1
    told = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(told.out)))
    assert list(rows[0]) == ["path", "logit", "score", "decision", "error"]
    assert len(rows) == 40 + 1 + 10 + 1
    failed = {row["path"]: row["error"] for row in rows if row["error"]}
    assert set(failed) == {str(tmp_path / "broken.jpg"), "/nowhere.png"}
    assert failed[str(tmp_path / "broken.jpg")].startswith("not_an_image")
    assert "1 = generated" in told.err
    assert "fpr_5pct, fitted on val" in told.err
    real = [float(row["logit"]) for row in rows[:40]]
    fake = [float(row["logit"]) for row in rows if "/fake/" in row["path"]]
    assert sorted(fake)[len(fake) // 2] > sorted(real)[len(real) // 2]

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{run}/images/real/00000.jpeg\n"))
    assert main(["predict", checkpoint, "-", "--format", "jsonl"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["logit"] == pytest.approx(real[0], abs=1e-5)


def test_predictions_and_predict_agree(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Manifest.load(run / "dataset")
    stored = pl.read_parquet(run / "run/predictions.parquet").join(manifest.frame, on="image_id")
    row = stored.row(0, named=True)
    capsys.readouterr()
    command = [
        "predict",
        str(run / "run/checkpoints/best.ckpt"),
        str(manifest.image_file(row["path"])),
        "--format",
        "jsonl",
    ]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["logit"] == pytest.approx(row["logit"], abs=1e-5)
    assert answer["score"] == pytest.approx(row["score"], abs=1e-6)
