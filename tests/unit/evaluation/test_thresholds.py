from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from forgery_det.detectors.checkpoint import CheckpointFacts
from forgery_det.evaluation.evaluate import choose_thresholds
from forgery_det.evaluation.thresholds import OPERATING_POINTS, fit_on_val, from_checkpoint, no_thresholds
from forgery_det.transforms.preprocess import Preprocess


def test_fitted_thresholds_keep_the_wanted_fpr_on_val() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [400, 300])
    logit = rng.normal(label * 2.0, 1.0)
    fitted = fit_on_val(label, logit, "d")
    real = logit[label == 0]
    assert (real >= fitted.value["fpr_1pct"]).sum() == 4
    assert (real >= fitted.value["fpr_5pct"]).sum() == 20
    # the lowest threshold that keeps the promise: one more observed logit down and it would break it
    below = real[real < fitted.value["fpr_1pct"]].max()
    assert (real >= below).sum() == 5
    accuracy = [((logit[label == 1] >= t).mean() + (real < t).mean()) / 2 for t in logit]
    at_balanced = (
        (logit[label == 1] >= fitted.value["balanced"]).mean() + (real < fitted.value["balanced"]).mean()
    ) / 2
    assert at_balanced == max(accuracy)
    assert fitted.source == "val split of d (700 images, 400 real)"
    assert fitted.reason == {}


def test_few_real_images_are_said() -> None:
    fitted = fit_on_val(np.repeat([0, 1], [30, 10]), np.arange(40.0), "d")
    assert set(fitted.value) == set(OPERATING_POINTS)
    assert list(fitted.reason) == ["fpr_1pct"]
    assert "only 30 real images: one false alarm is already 3.3%" in fitted.reason["fpr_1pct"]


def test_val_without_generated_images_still_bounds_the_false_alarms() -> None:
    fitted = fit_on_val(np.zeros(200, int), np.arange(200.0), "d")
    assert set(fitted.value) == {"fpr_1pct", "fpr_5pct"}
    assert fitted.reason["balanced"] == "not estimable (n = 200: only real images)"


def checkpoint(points: dict[str, float] | None, **training: object) -> CheckpointFacts:
    return CheckpointFacts("frozen_probe", {}, Preprocess(), None, points, training)


def test_checkpoint_comes_first(scored: pl.DataFrame) -> None:
    points = {"fpr_1pct": 2.0, "fpr_5pct": 1.0, "balanced": 0.5}
    chosen = choose_thresholds(checkpoint(points), scored, "test", "d")
    assert chosen.value == points
    assert chosen.source.startswith("the checkpoint")
    assert chosen.reason == {}


def test_a_checkpoint_that_was_calibrated_on_few_real_images_says_so(scored: pl.DataFrame) -> None:
    facts = checkpoint({"fpr_1pct": 2.0, "fpr_5pct": 1.0, "balanced": 0.5}, n_val_real=15)
    chosen = choose_thresholds(facts, scored, "test", "d")
    assert chosen.n_real == 15
    assert set(chosen.reason) == {"fpr_1pct", "fpr_5pct"}
    assert "only 15 real images: one false alarm is already 6.7%" in chosen.reason["fpr_5pct"]


def test_then_val_and_only_val(scored: pl.DataFrame) -> None:
    chosen = choose_thresholds(checkpoint(None), scored, "test", "d")
    val = scored.filter(pl.col("split") == "val")
    alone = choose_thresholds(checkpoint(None), val, "test", "d")
    assert chosen.value == alone.value  # test rows play no part
    assert chosen.n_real == val.filter(pl.col("label") == 0).height


def test_never_the_judged_split(scored: pl.DataFrame) -> None:
    chosen = choose_thresholds(checkpoint(None), scored, "val", "d")
    assert chosen.value == {}
    assert set(chosen.reason) == set(OPERATING_POINTS)
    assert "val is the split that is judged" in chosen.reason["balanced"]


@pytest.mark.parametrize("points", [None, {}])
def test_no_val_no_threshold(judged: pl.DataFrame, points: dict[str, float] | None) -> None:
    chosen = choose_thresholds(checkpoint(points), judged, "test", "d")
    assert chosen == no_thresholds("neither the checkpoint nor the dataset has a val split to fit it on")


def test_points_missing_in_a_checkpoint_are_named() -> None:
    assert from_checkpoint({"balanced": 0.0}).reason == {
        "fpr_1pct": "not in the checkpoint",
        "fpr_5pct": "not in the checkpoint",
    }
