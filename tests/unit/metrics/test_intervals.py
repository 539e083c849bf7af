from __future__ import annotations

import pytest
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.intervals import clopper_pearson, rate_estimate, upper_bound, wilson

TRIALS = [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (81, 263), (999, 1000)]


@pytest.mark.parametrize(("k", "n"), TRIALS)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_intervals_equal_scipy(k: int, n: int, confidence: float) -> None:
    for function, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = stats.binomtest(k, n).proportion_ci(confidence_level=confidence, method=method)
        ours = function(k, n, confidence)
        assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high), abs=1e-10)
        assert 0.0 <= ours.low <= k / n <= ours.high <= 1.0
    one_sided = (
        stats.binomtest(k, n, alternative="less").proportion_ci(confidence_level=confidence, method="exact").high
    )
    assert upper_bound(k, n, confidence) == pytest.approx(one_sided, abs=1e-10)


def test_published_values() -> None:
    """Newcombe 1998 (Statistics in Medicine 17), table I: 81/263, 15/148, 0/20 and 1/29, Wilson and Clopper-Pearson."""
    wilson_table = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    exact_table = {
        (81, 263): (0.2527, 0.3676),
        (15, 148): (0.0578, 0.1617),
        (0, 20): (0, 0.1684),
        (1, 29): (0.0009, 0.1776),
    }
    for (k, n), ends in wilson_table.items():
        assert (wilson(k, n).low, wilson(k, n).high) == pytest.approx(ends, abs=6e-5)
    for (k, n), ends in exact_table.items():
        assert (clopper_pearson(k, n).low, clopper_pearson(k, n).high) == pytest.approx(ends, abs=6e-5)


def test_rate_estimate_names_what_is_missing() -> None:
    assert rate_estimate(3, 20).value == 0.15
    assert rate_estimate(3, 20, method="clopper_pearson").ci_low == clopper_pearson(3, 20).low
    assert (rate_estimate(0, 0).value, rate_estimate(0, 0).note) == (None, "not estimable (n = 0: no images)")


def test_wrong_input_is_named() -> None:
    with pytest.raises(MetricError, match=r"^Expected `successes` in \[0, n = 3\], got 4\.$"):
        wilson(4, 3)
    with pytest.raises(NotEstimableError, match="n = 0"):
        clopper_pearson(0, 0)
    with pytest.raises(ConfigError, match=r"^Expected `confidence` in \(0, 1\), got 1\.0\.$"):
        upper_bound(1, 2, 1.0)
    with pytest.raises(ConfigError, match=r"^Expected `method` in \{wilson, clopper_pearson\}, got 'wald'\.$"):
        rate_estimate(1, 2, method="wald")
