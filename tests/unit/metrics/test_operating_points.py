from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.operating_points import operating_point
from forgery_det.metrics.thresholded import fpr, threshold_at_fpr, tpr


def logits(n: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    return label, rng.normal(size=n) + 2 * label


def test_point_is_the_threshold_rule_with_a_bound() -> None:
    label, logit = logits()
    point = operating_point(label, logit, 0.05)
    assert point.threshold == threshold_at_fpr(label, logit, 0.05)
    assert (point.fpr, point.tpr) == (fpr(label, logit, point.threshold), tpr(label, logit, point.threshold))
    n = int((label == 0).sum())
    expected = stats.binomtest(int(0.05 * n), n, alternative="less").proportion_ci(method="exact").high
    assert point.fpr_upper == pytest.approx(expected)


def test_guarantee_is_the_largest_count_that_keeps_the_promise() -> None:
    label, logit = logits()
    point = operating_point(label, logit, 0.05, guaranteed=True)
    n = int((label == 0).sum())
    counts = [k for k in range(n) if stats.beta.ppf(0.95, k + 1, n - k) <= 0.05]
    assert round(point.fpr * n) == max(counts)
    assert point.fpr_upper <= 0.05 < stats.beta.ppf(0.95, max(counts) + 2, n - max(counts) - 1)


def test_guarantee_needs_enough_real_images() -> None:
    label, logit = np.zeros(298, dtype=int), np.arange(298.0)
    with pytest.raises(
        NotEstimableError, match=r"^not estimable \(n = 298: FPR <= 0.01 .* at least 299 real images\)$"
    ):
        operating_point(label, logit, 0.01, guaranteed=True)
    point = operating_point(np.zeros(299, dtype=int), np.arange(299.0), 0.01, guaranteed=True)
    assert (point.fpr, point.tpr) == (0.0, None)


@pytest.mark.slow
def test_bound_holds_on_new_images_as_often_as_it_says() -> None:
    """For continuous logits the FPR of the rule is Beta(k + 1, n - k); the uniform distribution makes it visible."""
    rng = np.random.default_rng(3)
    for guaranteed in (False, True):
        held = []
        for _ in range(2000):
            point = operating_point(np.zeros(200, dtype=int), rng.uniform(size=200), 0.05, guaranteed=guaranteed)
            # True FPR of a threshold t is 1 - t; the strictest equivalent threshold is the observed logit itself.
            held.append(1 - point.threshold <= point.fpr_upper)
        assert np.mean(held) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^Expected `target_fpr` in \(0, 1\), got 0\.$"):
        operating_point([0, 1], [0, 1], 0)
    with pytest.raises(NotEstimableError, match="only generated images"):
        operating_point([1], [0], 0.05)
