from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress
from forgery_det.data.batches import iterate_batches
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.metrics.ranking import auroc
from forgery_det.metrics.thresholded import fpr
from forgery_det.training import fit

Words = Callable[..., list[str]]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).detector.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def scores(checkpoint: Path, dataset: Path, split: str) -> tuple[list[float], list[float]]:
    detector = load_checkpoint(checkpoint).detector
    manifest = Manifest.load(dataset).subset(pl.col("split") == split)
    labels: list[float] = []
    logits: list[float] = []
    with torch.no_grad():
        for batch in iterate_batches(manifest, detector.preprocess, 8):
            labels += batch.label_B.tolist()
            logits += detector(batch.image_BCHW).tolist()
    return labels, logits


def test_fit_learns_calibrates_on_val_and_writes_what_made_it(words: Words, learnable: Path) -> None:
    seen: list[Progress] = []
    result = fit(words(epochs=12, run__patience=50), seen.append)
    facts = load_checkpoint(result.checkpoint).facts
    labels, logits = scores(result.checkpoint, learnable, "test")
    assert auroc(labels, logits) > 0.9
    val_labels, val_logits = scores(result.checkpoint, learnable, "val")
    assert facts.operating_points is not None
    assert fpr(val_labels, val_logits, facts.operating_points["fpr_5pct"]) <= 0.05
    assert facts.temperature is not None
    assert facts.training["generators"] == ["grid-1"]
    assert (facts.training["n_train"], facts.training["n_val"]) == (24, 12)
    record = json.loads((result.run / "fit.json").read_text())
    assert record["facts"]["operating_points"] == facts.operating_points
    assert record["manifest_hash"] == Manifest.load(learnable).digest()
    assert record["config"]["model"]["detector"] == "frozen_probe"
    assert [p.done for p in seen if p.stage == "train"][-1] == 12
    assert list((result.run / "logs").rglob("metrics.csv"))


@pytest.mark.slow
def test_cached_features_give_the_training_that_images_give(words: Words) -> None:
    cached = fit(words("cached"))
    direct = fit(words("direct", run__cache_features="false"))
    first, second = weights(cached.checkpoint), weights(direct.checkpoint)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-5, msg=name)


def test_the_same_command_is_done_at_once_and_another_is_refused(words: Words) -> None:
    result = fit(words())
    before = result.checkpoint.stat().st_mtime_ns
    assert fit(words()) == result
    assert result.checkpoint.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"got other values of trainer\.max_epochs"):
        fit(words(epochs=4))


@pytest.mark.slow
def test_a_training_without_validation_gain_stops_early_and_stays_stopped(words: Words) -> None:
    result = fit(words(epochs=40, model__optimizer__lr=1e-12, run__patience=2))
    record = json.loads((result.run / "fit.json").read_text())
    assert record["facts"]["epochs"] < 10
    best = weights(result.checkpoint)
    (result.run / "fit.json").unlink()
    again = fit(words(epochs=40, model__optimizer__lr=1e-12, run__patience=2))
    assert json.loads((again.run / "fit.json").read_text())["facts"]["epochs"] == record["facts"]["epochs"]
    assert same(weights(again.checkpoint), best)


@pytest.mark.slow
def test_moving_average_of_the_weights_is_what_is_kept(words: Words) -> None:
    plain = fit(words("plain", epochs=2))
    averaged = fit(words("averaged", epochs=2, run__ema_decay=0.9))
    assert not same(weights(plain.checkpoint), weights(averaged.checkpoint))


@pytest.mark.slow
def test_fine_tuning_moves_the_backbone_and_accumulates_gradients(words: Words) -> None:
    result = fit(words(detector="timm_classifier", epochs=1, trainer__accumulate_grad_batches=2))
    trained = weights(result.checkpoint)
    untouched = fit(words("still", detector="timm_classifier", epochs=1, model__optimizer__lr=1e-12))
    moved = [name for name, tensor in weights(untouched.checkpoint).items() if not torch.equal(tensor, trained[name])]
    assert any("conv" in name for name in moved)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("model__optimizer__lr", "-1", r"Expected `optimizer\.lr` above 0, got -1"),
        ("model__optimizer__warmup_fraction", "1.5", r"Expected `optimizer\.warmup_fraction` in \[0, 1\), got 1\.5"),
    ],
)
def test_settings_out_of_range_are_told(
    words: Words, option: str, value: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        fit(words(**{option: value}))
    except ConfigError as error:
        told = str(error)
    except SystemExit:
        told = capsys.readouterr().err
    assert re.search(text, told)


def test_unknown_keys_are_refused(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit([*words(), "--model.leaning_rate", "3"])
    assert "leaning_rate" in capsys.readouterr().err


def run_and_kill(arguments: list[str], until: Callable[[], bool]) -> bool:
    """Start a training in another process, kill -9 it once `until` holds; return whether it was still running."""
    code = "import sys; from forgery_det.training import fit; fit(sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    while process.poll() is None and not until():
        time.sleep(0.02)
    running = process.poll() is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return running


@pytest.mark.slow
def test_killed_and_started_again_ends_in_the_same_weights(words: Words, tmp_path: Path) -> None:
    whole = fit(words("whole", epochs=30))
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert run_and_kill(words("cut", epochs=30), last.is_file)
    assert not (tmp_path / "cut" / "fit.json").exists()
    resumed = fit(words("cut", epochs=30))
    assert same(weights(resumed.checkpoint), weights(whole.checkpoint))
    first = load_checkpoint(whole.checkpoint).facts
    second = load_checkpoint(resumed.checkpoint).facts
    assert (first.temperature, first.operating_points) == (second.temperature, second.operating_points)


def test_excluded_generators_are_not_called_seen(learnable: Path, tmp_path: Path, words: Words) -> None:
    manifest = Manifest.load(learnable)
    fakes = manifest.frame.filter(pl.col("label") == 1)["image_id"].to_list()
    renamed = pl.when(pl.col("image_id").is_in(fakes[::2])).then(pl.lit("grid-2")).otherwise(pl.col("generator"))
    other = Manifest(manifest.frame.with_columns(renamed.alias("generator")), tmp_path / "two")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "images").symlink_to(learnable / "images")
    other.write()
    result = fit(words("without", epochs=1, data__dataset=other.root, data__exclude_generators="[grid-2]"))
    assert load_checkpoint(result.checkpoint).facts.training["generators"] == ["grid-1"]


class CutError(Exception):
    """Stands for whatever ends a process between two epochs."""


def cut_at(epoch: int) -> Callable[[Progress], None]:
    def sink(progress: Progress) -> None:
        if progress.stage == "train" and progress.done == epoch:
            raise CutError

    return sink


OPTIONS: dict[str, dict[str, object]] = {
    "average": {"run__ema_decay": 0.8, "trainer__accumulate_grad_batches": 2},
    "without gain": {"model__optimizer__lr": 1e-12, "run__patience": 9},
    "bfloat16": {"trainer__precision": "bf16-mixed", "run__cache_features": "false"},
    "contrast on features": {
        "detector": "rine",
        "model__detector_args": '{"backbone": "test_clip_vit", "dim": 16, "backbone_weights": null}',
        "model__loss": "bce_contrastive",
        "model__loss_args": '{"weight": 0.1}',
    },
    "orthogonal in bfloat16": {
        "detector": "effort",
        "model__detector_args": '{"backbone": "test_clip_vit", "backbone_weights": null}',
        "model__loss": "bce_orthogonal",
        "trainer__precision": "bf16-mixed",
    },
}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(value, id=key, marks=[pytest.mark.slow] * (key != "contrast on features"))
        for key, value in OPTIONS.items()
    ],
)
def test_a_training_with_any_option_resumes_to_the_same_weights(words: Words, options: dict[str, object]) -> None:
    options = {"epochs": 4, "model__optimizer__lr": 0.01, **options}
    whole = fit(words("whole", **options))
    with pytest.raises(CutError):
        fit(words("cut", **options), cut_at(3))
    seen: list[Progress] = []
    resumed = fit(words("cut", **options), seen.append)
    assert [p.done for p in seen if p.stage == "train"] == [3, 4], "the finished epochs must not be trained again"
    assert same(weights(resumed.checkpoint), weights(whole.checkpoint))
    facts = [json.loads((run.run / "fit.json").read_text())["facts"] for run in (whole, resumed)]
    assert facts[0]["best_val_loss"] == facts[1]["best_val_loss"]


def test_a_loss_of_a_method_is_chosen_by_the_configuration(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"Expected a detector with an embedding .*got frozen_probe"):
        fit(words("a", model__loss="bce_contrastive"))
    with pytest.raises(UnknownNameError, match=r"Unknown loss 'bec': did you mean 'bce'"):
        fit(words("b", model__loss="bec"))
    assert not capsys.readouterr().out


def test_the_validation_loss_gives_both_classes_half(words: Words, learnable: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(learnable)
    reals = manifest.frame.filter(pl.col("split") == "val", pl.col("label") == 0)["image_id"].to_list()
    moved = pl.when(pl.col("image_id").is_in(reals[:4])).then(pl.lit("train")).otherwise(pl.col("split"))
    other = Manifest(manifest.frame.with_columns(moved.alias("split")), tmp_path / "uneven")
    other.root.mkdir()
    (other.root / "images").symlink_to(learnable / "images")
    other.write()
    result = fit(words("uneven_run", epochs=2, data__dataset=other.root))
    labels, logits = scores(result.checkpoint, other.root, "val")
    assert (labels.count(0), labels.count(1)) == (2, 6)
    surprise = [math.log1p(math.exp(-z if y else z)) for y, z in zip(labels, logits, strict=True)]
    expected = sum(
        sum(s for s, y in zip(surprise, labels, strict=True) if y == label) / labels.count(label) for label in (0, 1)
    )
    record = json.loads((result.run / "fit.json").read_text())
    assert record["facts"]["best_val_loss"] == pytest.approx(expected / 2, rel=1e-4)
