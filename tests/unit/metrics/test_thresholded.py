from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics as reference

from forgery_det.core.errors import ConfigError
from forgery_det.metrics import thresholded
from forgery_det.metrics.errors import NotEstimableError

SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=60)


def tied_data(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return label, np.round(rng.normal(size=n) + label, 1)


def split_by_class(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray] | None:
    label, logit = (np.array(column) for column in zip(*rows, strict=True))
    return None if label.min() == label.max() else (label, logit)


@pytest.mark.parametrize("threshold", [-9.0, 0.3, 9.0])
def test_rates_equal_scikit_learn(threshold: float) -> None:
    label, logit = tied_data()
    called = logit >= threshold
    assert thresholded.tpr(label, logit, threshold) == pytest.approx(reference.recall_score(label, called))
    assert thresholded.fpr(label, logit, threshold) == pytest.approx(
        1 - reference.recall_score(label, called, pos_label=0)
    )
    assert thresholded.accuracy(label, logit, threshold) == pytest.approx(reference.accuracy_score(label, called))
    assert thresholded.balanced_accuracy(label, logit, threshold) == pytest.approx(
        reference.balanced_accuracy_score(label, called)
    )


def test_a_logit_at_the_threshold_is_called_generated() -> None:
    assert thresholded.tpr([1], [0.5], 0.5) == 1.0
    assert thresholded.fpr([0], [0.5], 0.5) == 1.0


@given(SCORED, st.sampled_from([0.0, 0.01, 0.05, 0.25, 0.29, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_threshold_at_fpr_is_the_smallest_observed_one(rows: list[tuple[int, int]], target: float) -> None:
    data = split_by_class(rows)
    if data is None:
        return
    label, logit = data
    threshold = thresholded.threshold_at_fpr(label, logit, target)
    real = logit[label == 0]
    assert np.mean(real >= threshold) <= target + 1e-12
    laxer = np.unique(logit)[np.unique(logit) < threshold]
    assert all(np.mean(real >= value) > target for value in laxer)


def test_threshold_at_fpr_does_not_lose_an_image_to_rounding() -> None:
    label, logit = np.zeros(100, dtype=int), np.arange(100.0)
    assert 0.29 * 100 < 29
    assert thresholded.threshold_at_fpr(label, logit, 0.29) == 71.0
    assert thresholded.fpr(label, logit, 71.0) == pytest.approx(0.29)


def test_threshold_at_fpr_never_splits_a_tie() -> None:
    threshold = thresholded.threshold_at_fpr([0, 0, 0, 1], [1.0, 1.0, 1.0, 1.0], 0.5)
    assert threshold == np.nextafter(1.0, np.inf)
    with pytest.raises(NotEstimableError, match=r"2 real images have logit \+inf, more than FPR 0.05 allows"):
        thresholded.threshold_at_fpr([0, 0, 1], [np.inf, np.inf, 0.0], 0.05)


def test_threshold_at_fpr_refuses_a_target_outside_its_range() -> None:
    with pytest.raises(ConfigError, match=r"^Expected `target_fpr` in \[0, 1\], got 5\.$"):
        thresholded.threshold_at_fpr([0, 1], [0, 1], 5)
    with pytest.raises(NotEstimableError, match="only generated images"):
        thresholded.threshold_at_fpr([1, 1], [0, 1], 0.05)


@given(SCORED)
@settings(max_examples=60, deadline=None)
def test_threshold_balanced_is_best_and_highest(rows: list[tuple[int, int]]) -> None:
    data = split_by_class(rows)
    if data is None:
        return
    label, logit = data
    values = np.unique(logit)
    gains = np.array([reference.balanced_accuracy_score(label, logit >= value) for value in values])
    best = values[gains >= gains.max() - 1e-12].max()
    assert thresholded.threshold_balanced(label, logit) == best


@given(SCORED)
@settings(max_examples=100, deadline=None)
def test_eer_is_the_crossing_of_the_interpolated_curve(rows: list[tuple[int, int]]) -> None:
    data = split_by_class(rows)
    if data is None:
        return
    fpr, tpr, _ = reference.roc_curve(*data)
    # Along the curve by its length, because FPR alone is not a parameter where the curve is vertical.
    way = np.concatenate([[0], np.cumsum(np.hypot(np.diff(fpr), np.diff(tpr)))])
    f, t = interp1d(way, fpr), interp1d(way, tpr)
    crossing = brentq(lambda s: f(s) + t(s) - 1, 0, way[-1])
    assert thresholded.eer(*data) == pytest.approx(float(f(crossing)), abs=1e-9)


@pytest.mark.parametrize("far", [0.0, 0.01, 0.05, 0.1, 0.29, 1.0])
def test_pd_at_far_is_the_best_point_of_the_curve(far: float) -> None:
    for seed in range(20):
        label, logit = tied_data(100, seed)
        fpr, tpr, _ = reference.roc_curve(label, logit, drop_intermediate=False)
        assert thresholded.pd_at_far(label, logit, far) == pytest.approx(tpr[fpr <= far + 1e-12].max())


@pytest.mark.parametrize("max_fpr", [0.001, 0.05, 0.1, 0.5, 0.99])
def test_partial_auroc_equals_scikit_learn(max_fpr: float) -> None:
    for seed in range(20):
        label, logit = tied_data(100, seed)
        expected = reference.roc_auc_score(label, logit, max_fpr=max_fpr)
        assert thresholded.partial_auroc(label, logit, max_fpr) == pytest.approx(expected, abs=1e-12)


def test_partial_auroc_and_far_refuse_what_is_no_share() -> None:
    with pytest.raises(ConfigError, match=r"^Expected `max_fpr` in \(0, 1\), got 1\.0\.$"):
        thresholded.partial_auroc([0, 1], [0, 1], 1.0)
    with pytest.raises(ConfigError, match=r"^Expected `far` in \[0, 1\], got -0\.1\.$"):
        thresholded.pd_at_far([0, 1], [0, 1], -0.1)
    with pytest.raises(ConfigError, match=r"^Expected `threshold` to be a number, got NaN\.$"):
        thresholded.tpr([0, 1], [0, 1], float("nan"))
