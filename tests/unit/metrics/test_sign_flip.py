from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.sign_flip import sign_flip_test


def test_few_independent_pairs_agree_with_scipy() -> None:
    difference = np.random.default_rng(0).normal(0.6, 1.0, 10)
    expected = permutation_test(
        (difference, np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_test(difference, range(10)) == pytest.approx(expected)


def test_many_clusters_agree_with_the_normal_limit() -> None:
    difference = np.random.default_rng(1).normal(0.2, 1.0, 200)
    z = difference.sum() / np.sqrt((difference**2).sum())
    from scipy.stats import norm

    assert sign_flip_test(difference, range(200)) == pytest.approx(2 * norm.sf(abs(z)), abs=0.01)


def test_a_cluster_counts_once() -> None:
    difference = np.array([1.0, 2.0, 1.5, 0.5])
    repeated = sign_flip_test(np.repeat(difference, 5), np.repeat(np.arange(4), 5))
    assert repeated == sign_flip_test(difference, range(4)) == 2 / 16


def test_rate_without_an_effect_is_nominal() -> None:
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(12), 3)
    p = [sign_flip_test(rng.normal(size=12)[cluster] + rng.normal(size=36), cluster) for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.08


def test_edges() -> None:
    assert sign_flip_test([0.0, 0.0], [0, 1]) == 1.0
    assert sign_flip_test([3.0], [0]) == 1.0
    assert sign_flip_test(np.ones(30), range(30)) == pytest.approx(1 / 10_000)
    with pytest.raises(NotEstimableError, match="n = 0: no pairs"):
        sign_flip_test([], [])
    with pytest.raises(MetricError, match="NaN"):
        sign_flip_test([np.nan], [0])
    with pytest.raises(ConfigError, match="n_flips"):
        sign_flip_test([1.0], [0], n_flips=0)
