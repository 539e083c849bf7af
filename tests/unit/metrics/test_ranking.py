from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference
from torchmetrics.functional.classification import binary_auroc

from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.ranking import auroc, average_precision, roc_curve
from forgery_det.metrics.registry import METRICS

SCORED = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=60)


def tied_data(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return label, np.round(rng.normal(size=n) + label, 1)


@given(SCORED)
@settings(max_examples=80, deadline=None)
def test_auroc_and_ap_equal_scikit_learn_under_ties(rows: list[tuple[int, int]]) -> None:
    label, logit = (np.array(column) for column in zip(*rows, strict=True))
    if label.min() == label.max():
        with pytest.raises(NotEstimableError):
            auroc(label, logit)
        return
    assert auroc(label, logit) == pytest.approx(reference.roc_auc_score(label, logit), abs=1e-12)
    assert average_precision(label, logit) == pytest.approx(reference.average_precision_score(label, logit), abs=1e-12)


def test_auroc_equals_mann_whitney_and_torchmetrics() -> None:
    label, logit = tied_data()
    u = stats.mannwhitneyu(logit[label == 1], logit[label == 0]).statistic
    assert auroc(label, logit) == pytest.approx(u / (label.sum() * (1 - label).sum()), abs=1e-14)
    in_unit = (logit - logit.min()) / np.ptp(logit)
    ours = float(binary_auroc(torch.tensor(in_unit), torch.tensor(label)))
    assert auroc(label, in_unit) == pytest.approx(ours, abs=1e-6)


def test_roc_curve_is_the_curve_of_scikit_learn() -> None:
    label, logit = tied_data()
    ours = roc_curve(label, logit)
    fpr, tpr, threshold = reference.roc_curve(label, logit, drop_intermediate=False)
    assert len(ours.fpr) < len(fpr)
    kept = np.isin(threshold, ours.threshold)
    np.testing.assert_allclose(ours.fpr, fpr[kept], atol=1e-15)
    np.testing.assert_allclose(ours.tpr, tpr[kept], atol=1e-15)
    np.testing.assert_allclose(np.interp(fpr, ours.fpr, ours.tpr)[np.diff(fpr, prepend=-1) > 0].max(), 1.0)
    assert np.trapezoid(ours.tpr, ours.fpr) == pytest.approx(auroc(label, logit), abs=1e-12)


def test_roc_curve_drops_only_points_on_a_straight_line() -> None:
    curve = roc_curve([0, 1, 0, 1, 1], [0, 0, 1, 1, 2])
    assert curve.threshold.tolist() == [np.inf, 2.0, 0.0]


def test_constant_logits_have_a_defined_value() -> None:
    label = [0, 0, 0, 1]
    assert auroc(label, [7.0] * 4) == 0.5
    assert average_precision(label, [7.0] * 4) == 0.25


def test_infinite_logits_rank_like_any_other() -> None:
    assert auroc([0, 0, 1, 1], [-np.inf, 0.0, 1.0, np.inf]) == 1.0
    assert auroc([0, 1], [np.inf, np.inf]) == 0.5


def test_order_of_rows_and_monotone_maps_change_nothing() -> None:
    label, logit = tied_data()
    order = np.random.default_rng(1).permutation(len(label))
    assert auroc(label[order], logit[order]) == auroc(label, logit)
    assert auroc(label, np.exp(logit)) == auroc(label, logit)
    assert auroc(1 - label, logit) == pytest.approx(1 - auroc(label, logit), abs=1e-14)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("label", "text"),
    [([], "n = 0: no images"), ([0], "n = 1: only real images"), ([1, 1], "n = 2: only generated images")],
)
def test_every_metric_gives_a_value_or_says_why_not(name: str, label: list[int], text: str) -> None:
    metric = METRICS[name]
    missing = {"both": True, "real": 0 not in label, "generated": 1 not in label, "any": not label}[metric.needs]
    arguments = (label, [0.5] * len(label), *([0.0] if metric.needs_threshold else []))
    if missing:
        with pytest.raises(NotEstimableError, match=f"^not estimable \\({text}\\)$"):
            metric.function(*arguments)
    else:
        assert np.isfinite(metric.function(*arguments))


@pytest.mark.parametrize(
    ("label", "logit", "text"),
    [
        ([0, 2], [0, 1], r"^Expected `label` in \{0, 1\}, got 2 at index 1 \(1 such values\)\.$"),
        ([0, np.nan], [0, 1], r"got nan at index 1"),
        ([0, None], [0, 1], r"got None at index 1"),
        ([0, 1], [np.nan, np.nan], r"^Expected `logit` without NaN, got 2 NaN of 2 values, the first at index 0\.$"),
        ([0, 1], [0, 1, 2], r"^Expected arrays of equal length, got label 2, logit 3\.$"),
        ([[0, 1]], [0, 1], r"^Expected `label` with 1 dimension, got shape \(1, 2\)\.$"),
        ([0, 1], ["a", "b"], r"^Expected `logit` to be numbers"),
    ],
)
def test_wrong_input_is_named(label: list[object], logit: list[object], text: str) -> None:
    with pytest.raises(MetricError, match=text):
        auroc(label, logit)


def test_boolean_labels_and_float32_logits_are_taken() -> None:
    assert auroc(np.array([False, True]), np.array([0.0, 1.0], dtype=np.float32)) == 1.0
