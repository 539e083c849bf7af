from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from forgery_det.cli import main
from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.core.manifest import Manifest
from forgery_det.data.batches import iterate_batches
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.detectors.ensemble import Ensemble
from forgery_det.training import fit
from forgery_det.training.weigh import weigh

Words = Callable[..., list[str]]


def logits(checkpoint: Path, images: Manifest) -> tuple[np.ndarray, np.ndarray]:
    detector = load_checkpoint(checkpoint).detector
    with torch.no_grad():
        batches = [
            (batch.label_B.numpy(), detector(batch.image_BCHW).double().numpy())
            for batch in iterate_batches(images, detector.preprocess, 8)
        ]
    label, logit = zip(*batches, strict=True)
    return np.concatenate(label), np.concatenate(logit)


def split(dataset: Path, name: str) -> Manifest:
    return Manifest.load(dataset).subset(pl.col("split") == name)


def test_members_are_weighed_on_val_and_compared_on_test(members: list[Path], learnable: Path, tmp_path: Path) -> None:
    result = weigh(members, learnable, tmp_path / "out", batch_size=8, n_replicates=50)
    together, *rows = result.rows
    assert [row.name for row in result.rows] == ["ensemble", "1 frozen_probe", "2 timm_classifier", "3 rigid"]

    # Each member's numbers are its own, and the best is the best on val.
    for row, checkpoint in zip(rows, members, strict=True):
        assert row.val_auroc == pytest.approx(roc_auc_score(*logits(checkpoint, split(learnable, "val"))))
        assert row.held_out.value == pytest.approx(roc_auc_score(*logits(checkpoint, split(learnable, "test"))))
        assert row.held_out.n == 12
        assert row.difference is not None
        assert row.difference.difference == pytest.approx(together.held_out.value - row.held_out.value)
    assert [row.best_on_val for row in rows].index(True) == int(np.argmax([row.val_auroc for row in rows]))

    # The checkpoint is the sum that was compared, calibrated on val, with every member inside.
    loaded = load_checkpoint(result.checkpoint)
    assert isinstance(loaded.detector, Ensemble)
    label, logit = logits(result.checkpoint, split(learnable, "test"))
    assert roc_auc_score(label, logit) == pytest.approx(together.held_out.value)
    alone = np.stack([logits(path, split(learnable, "test"))[1] for path in members], axis=1)
    weight, mean, spread = (getattr(loaded.detector, f"{name}_M").numpy() for name in ("weight", "mean", "spread"))
    expected = ((alone - mean) / spread * weight).sum(axis=1) + float(loaded.detector.bias)
    np.testing.assert_allclose(logit, expected, rtol=1e-4, atol=1e-4)
    assert loaded.facts.temperature is not None
    assert loaded.facts.training["generators"] == ["grid-1"]
    assert loaded.facts.training["n_val_real"] == 6

    record = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert record["command"] == "ensemble"
    assert [row["weight"] for row in record["facts"]["members"]][1:] == pytest.approx(list(weight), rel=1e-5)
    assert not result.notes


@pytest.mark.slow
def test_the_weights_do_not_depend_on_the_held_out_images(members: list[Path], learnable: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(learnable)
    swapped = (
        pl.when(pl.col("split") == "test")
        .then(pl.lit("train"))
        .otherwise(pl.when(pl.col("split") == "train").then(pl.lit("test")).otherwise(pl.col("split")))
    )
    other = Manifest(manifest.frame.with_columns(swapped.alias("split")), tmp_path / "other")
    other.root.mkdir()
    (other.root / "images").symlink_to(learnable / "images")
    other.write()
    first = weigh(members[:2], learnable, tmp_path / "a", batch_size=8, n_replicates=20)
    second = weigh(members[:2], other.root, tmp_path / "b", batch_size=8, n_replicates=20)
    assert [row.weight for row in first.rows] == [row.weight for row in second.rows]
    assert first.rows[1].held_out.n != second.rows[1].held_out.n
    assert "nothing here shows that it never saw the held-out images" in second.notes[0]


def test_the_command_prints_the_best_member_beside_the_sum(
    members: list[Path],
    learnable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    words = ["ensemble", *map(str, members[:2]), "--dataset", str(learnable), "--out", str(tmp_path / "out")]
    assert main([*words, "--n_replicates", "20", "--batch_size", "8"]) == 0
    told = capsys.readouterr().out
    assert told.count("(best on val)") == 1
    assert "ensemble minus this" in told
    assert str(tmp_path / "out" / "checkpoints" / "best.ckpt") in told
    assert main([*words, "--n_replicates", "20"]) == 2
    assert "Expected a folder without a finished training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chosen", "options", "text"),
    [
        ([0], {}, r"Expected two or more different checkpoints, got .*best\.ckpt"),
        ([0, 0], {}, r"Expected two or more different checkpoints"),
        ([], {}, r"Expected two or more different checkpoints, got none"),
        ([0, 1], {"split": "val"}, r"Expected a held-out split, got `val`"),
    ],
)
def test_what_cannot_be_weighed_is_told(
    members: list[Path], learnable: Path, tmp_path: Path, chosen: list[int], options: dict, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        weigh([members[index] for index in chosen], learnable, tmp_path / "out", **options)
    with pytest.raises(ConfigError, match=r"Expected a checkpoint, got nothing at .*absent"):
        weigh([members[0], tmp_path / "absent"], learnable, tmp_path / "out")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(WeightsError, match=r"text\.ckpt"):
        weigh([members[0], tmp_path / "text.ckpt"], learnable, tmp_path / "out")


@pytest.mark.slow
def test_a_detector_that_ranks_val_upside_down_keeps_its_ranking(words: Words, learnable: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(learnable)
    flipped = manifest.frame.with_columns(
        label=1 - pl.col("label"),
        generator=pl.when(pl.col("label") == 1).then(pl.lit("camera")).otherwise(pl.lit("grid-1")),
        paradigm=pl.when(pl.col("label") == 1).then(pl.lit("camera")).otherwise(pl.lit("diffusion")),
    )
    other = Manifest(flipped.with_columns(pl.col("label").cast(manifest.frame["label"].dtype)), tmp_path / "flipped")
    other.root.mkdir()
    (other.root / "images").symlink_to(learnable / "images")
    other.write()
    rigid = '{"backbone": "test_resnet", "backbone_weights": null, "image_size_px": 32}'
    aurocs = []
    for name, dataset in (("right", learnable), ("wrong", other.root)):
        run = fit(words(name, detector="rigid", model__detector_args=rigid, data__dataset=dataset))
        aurocs.append(roc_auc_score(*logits(run.checkpoint, split(dataset, "val"))))
        assert run.note.startswith("Nothing in rigid learns")
        facts = json.loads((run.run / "fit.json").read_text())["facts"]
        assert facts["val_auroc"] == pytest.approx(aurocs[-1])
        assert facts["combination"]["weight"][0] > 0
    assert sum(aurocs) == pytest.approx(1)
