from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from forgery_det.metrics.delong import auroc_covariance
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.group_difference import auroc_difference


def drawn(rng: np.random.Generator, shift: tuple[float, float], sizes: tuple[int, int, int]):
    """Returns label, logit, membership of the first group, cluster; images are independent."""
    n_first, n_second, n_real = sizes
    label = np.repeat([1, 1, 0], [n_first, n_second, n_real])
    logit = rng.normal(size=len(label)) + np.repeat([shift[0], shift[1], 0.0], [n_first, n_second, n_real])
    return label, logit, np.arange(len(label)) < n_first, np.arange(len(label))


def test_the_difference_is_that_of_two_aurocs() -> None:
    label, logit, first, cluster = drawn(np.random.default_rng(0), (1.0, 0.3), (20, 30, 25))
    expected = [roc_auc_score(label[m], logit[m]) for m in (first | (label == 0), ~first)]
    result = auroc_difference(label, logit, first, ~first, cluster)
    assert result.difference == pytest.approx(expected[0] - expected[1])
    assert result.n == 75


def test_two_views_of_the_same_images_have_the_variance_of_a_paired_comparison() -> None:
    # A group against a shifted copy of itself, image by image in one cluster, is two detectors on one set of images:
    # the fakes and their copies share clusters, so the covariance must come out as DeLong's for a pair.
    rng = np.random.default_rng(1)
    fake_a, fake_b, real = rng.normal(1, 1, 40), rng.normal(0.5, 1, 40), rng.normal(0, 1, 50)
    label = np.repeat([1, 1, 0], [40, 40, 50])
    logit = np.concatenate([fake_a, fake_b, real])
    cluster = np.concatenate([np.arange(40), np.arange(40), 40 + np.arange(50)])
    first = np.arange(130) < 40
    result = auroc_difference(label, logit, first, ~first, cluster)
    pair = np.repeat([1, 0], [40, 50])
    found = auroc_covariance(pair, [np.concatenate([fake_a, real]), np.concatenate([fake_b, real])])
    variance = found.covariance[0, 0] + found.covariance[1, 1] - 2 * found.covariance[0, 1]
    half = (result.ci_high - result.ci_low) / 2
    from scipy.stats import t

    assert half == pytest.approx(t.ppf(0.975, 39) * variance**0.5, rel=0.01)


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(2)
    label, logit, first, cluster = drawn(rng, (2.0, 0.3), (60, 60, 80))
    assert auroc_difference(label, logit, first, ~first, cluster).p_value < 1e-3
    p_values = []
    for _ in range(200):
        label, logit, first, cluster = drawn(rng, (1.0, 1.0), (30, 30, 40))
        p_values.append(auroc_difference(label, logit, first, ~first, cluster).p_value)
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10


def test_repeated_images_do_not_make_it_surer() -> None:
    label, logit, first, cluster = drawn(np.random.default_rng(3), (1.0, 0.5), (15, 15, 20))
    once = auroc_difference(label, logit, first, ~first, cluster)
    thrice = auroc_difference(*(np.repeat(a, 3) for a in (label, logit, first, ~first, cluster)))
    assert thrice.ci_low == pytest.approx(once.ci_low)
    assert thrice.p_value == pytest.approx(once.p_value)


def test_what_cannot_be_compared_is_said() -> None:
    label, logit = [0, 0, 0, 1, 1, 1], [0.0, 1.0, 2.0, 5.0, 6.0, 7.0]
    none, some = [False] * 6, [False, False, False, True, True, False]
    assert "0, 2 and 3 clusters" in auroc_difference(label, logit, none, some, range(6)).note
    one_cluster = auroc_difference(label, logit, some, [not s for s in some], [0, 1, 2, 3, 3, 4])
    assert one_cluster.difference is None
    perfect = auroc_difference(
        [0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 5, 6, 7, 8], [False] * 3 + [True, True, False, False],
        [False] * 5 + [True, True], range(7),
    )  # fmt: skip
    assert (perfect.difference, perfect.p_value) == (0.0, None)
    assert "variance 0" in perfect.note
    ties = auroc_difference(label, [1.0] * 6, some, [not s for s in some], range(6))
    assert ties.difference is None or ties.note
    with pytest.raises(MetricError, match="NaN"):
        auroc_difference(label, [np.nan, *logit[1:]], some, none, range(6))


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "most"), [((8, 50, 20), 0.985), ((60, 60, 60), 0.97)])
def test_coverage_is_near_nominal(sizes: tuple[int, int, int], most: float) -> None:
    # A small group is judged with the degrees of freedom of that group alone, which is a little too careful.
    rng = np.random.default_rng(4)
    true = norm.cdf(1.5 / 2**0.5) - norm.cdf(1.0 / 2**0.5)
    inside = 0
    for _ in range(3000):
        label, logit, first, cluster = drawn(rng, (1.5, 1.0), sizes)
        result = auroc_difference(label, logit, first, ~first, cluster)
        inside += result.ci_low is not None and result.ci_low <= true <= result.ci_high
    assert 0.93 <= inside / 3000 <= most
