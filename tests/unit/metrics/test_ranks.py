from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.ranks import critical_difference, mean_ranks, nemenyi_critical_difference


def test_critical_values_equal_the_published_table() -> None:
    """Demsar 2006 (JMLR 7), table 5(a): q at 0.05 and 0.10 for 2 to 10 classifiers."""
    table = {
        0.05: [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164],
        0.10: [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920],
    }
    for alpha, row in table.items():
        for k, q in zip(range(2, 11), row, strict=True):
            ours = nemenyi_critical_difference(k, 6, alpha) / np.sqrt(k * (k + 1) / 36)
            assert ours == pytest.approx(q, abs=1.1e-3)


def test_ranks_and_p_value_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    table = np.round(rng.uniform(size=(12, 5)) + np.array([0.3, 0, 0.1, 0, 0]), 1)
    result = critical_difference(table, list("abcde"))
    assert result.p_value == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    expected = np.mean([stats.rankdata(-row) for row in table], axis=0)
    np.testing.assert_allclose(mean_ranks(table), expected)
    assert result.names[0] == "abcde"[int(np.argmin(expected))]
    assert result.mean_rank == tuple(sorted(expected))
    flipped = critical_difference(-table, list("abcde"), higher_is_better=False)
    assert flipped == result


def test_groups_are_the_maximal_runs_without_a_difference() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        table = np.random.default_rng(seed).uniform(size=(15, 6)) + rng.uniform(size=6)
        result = critical_difference(table, list("abcdef"))
        rank = dict(zip(result.names, result.mean_rank, strict=True))
        together = {frozenset(p) for g in result.groups for p in ((x, y) for x in g for y in g)}
        for x in rank:
            for y in rank:
                assert (frozenset((x, y)) in together) == (abs(rank[x] - rank[y]) < result.critical_difference)
        assert not any(set(g) < set(h) for g in result.groups for h in result.groups)


def test_ties_everywhere_are_no_difference() -> None:
    result = critical_difference(np.ones((4, 3)), ["a", "b", "c"])
    assert (result.p_value, result.groups) == (1.0, (("a", "b", "c"),))


def test_wrong_input_is_named() -> None:
    with pytest.raises(MetricError, match=r"got 1 missing, the first in row 1, column 0\.$"):
        critical_difference([[1, 2, 3], [np.nan, 1, 2]], ["a", "b", "c"])
    with pytest.raises(MetricError, match=r"^Expected 3 different `names`, one a column, got \['a', 'a', 'b'\]\.$"):
        critical_difference([[1, 2, 3]] * 3, ["a", "a", "b"])
    with pytest.raises(
        NotEstimableError, match=r"^not estimable \(2 detectors on 3 datasets: at least 3 on 2; compare two"
    ):
        critical_difference([[1, 2]] * 3, ["a", "b"])
    with pytest.raises(
        MetricError, match=r"^Expected `table` with 2 dimensions \(datasets, detectors\), got shape \(3,\)\.$"
    ):
        mean_ranks([1, 2, 3])
    with pytest.raises(ConfigError, match=r"^Expected at least 2 detectors and 1 dataset, got 1 and 0\.$"):
        nemenyi_critical_difference(1, 0)
