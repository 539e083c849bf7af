from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.comparison import holm, mcnemar
from forgery_det.metrics.delong import paired_delong
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.paired_bootstrap import paired_bootstrap


def from_table(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([1, 1, 0, 0], [both, only_first, only_second, neither])
    second = np.repeat([1, 0, 1, 0], [both, only_first, only_second, neither])
    return first, second


def test_mcnemar_equals_the_published_example() -> None:
    """Fagerland, Lydersen and Laake 2013, table 1 (airway reactivity: 1, 1, 7, 12): exact 0.070, mid-p 0.039."""
    first, second = from_table(1, 1, 7, 12)
    assert mcnemar(first, second, method="exact").p_value == pytest.approx(0.070, abs=5e-4)
    assert mcnemar(first, second).p_value == pytest.approx(0.039, abs=5e-4)
    assert (mcnemar(first, second).only_first, mcnemar(first, second).only_second) == (1, 7)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (5, 5), (3, 12), (40, 22)])
def test_mcnemar_exact_equals_scipy(b: int, c: int) -> None:
    expected = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert mcnemar(*from_table(9, b, c, 4), method="exact").p_value == pytest.approx(expected)


@pytest.mark.parametrize("method", ["mid_p", "exact"])
@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (5, 5), (3, 12), (40, 22)])
def test_mcnemar_with_one_image_a_cluster_is_mcnemar(b: int, c: int, method: str) -> None:
    table = from_table(9, b, c, 4)
    clustered = mcnemar(*table, cluster=np.arange(len(table[0])), method=method)
    plain = mcnemar(*table, method=method)
    assert clustered.p_value == pytest.approx(plain.p_value, abs=1e-12)


def test_mcnemar_of_clusters_equals_all_sign_flips() -> None:
    rng = np.random.default_rng(4)
    cluster = rng.integers(0, 9, 40)
    first, second = rng.random(40) < 0.8, rng.random(40) < 0.55
    surplus = np.array([(first[cluster == k].astype(int) - second[cluster == k]).sum() for k in range(9)])
    sums = np.array([np.dot(signs, surplus) for signs in itertools.product((-1, 1), repeat=9)])
    exact = (np.abs(sums) >= abs(surplus.sum())).mean()
    tie = (np.abs(sums) == abs(surplus.sum())).mean()
    assert mcnemar(first, second, cluster=cluster, method="exact").p_value == pytest.approx(exact, abs=1e-12)
    assert mcnemar(first, second, cluster=cluster).p_value == pytest.approx(exact - tie / 2, abs=1e-12)


def test_copies_of_an_image_prove_nothing_new() -> None:
    first, second = from_table(0, 3, 0, 0)
    plain = mcnemar(first, second)
    copied = mcnemar(np.repeat(first, 50), np.repeat(second, 50), cluster=np.repeat(np.arange(3), 50))
    assert copied.p_value == pytest.approx(plain.p_value)
    assert mcnemar(np.repeat(first, 50), np.repeat(second, 50)).p_value < 1e-40


def test_mcnemar_names_wrong_input() -> None:
    with pytest.raises(MetricError, match=r"^Expected `right_first` to be True or False for each image\.$"):
        mcnemar([0.5], [1])
    with pytest.raises(MetricError, match=r"^Expected arrays of equal length, got right_first 1, right_second 2\.$"):
        mcnemar([1], [1, 0])
    with pytest.raises(NotEstimableError, match=r"^not estimable \(n = 0: no images\)$"):
        mcnemar([], [])
    with pytest.raises(ConfigError, match=r"^Expected `method` in \{mid_p, exact\}, got 'chi2'\.$"):
        mcnemar([1], [1], method="chi2")


def test_holm_follows_the_step_down_rule() -> None:
    rng = np.random.default_rng(0)
    for alpha in (0.01, 0.05, 0.2):
        p = rng.uniform(size=12) ** 3
        rejected, order = np.zeros(12, dtype=bool), np.argsort(p)
        for step, index in enumerate(order):
            if p[index] > alpha / (12 - step):
                break
            rejected[index] = True
        np.testing.assert_array_equal(holm(p) <= alpha, rejected)


def test_holm_at_its_edges() -> None:
    assert holm([]).tolist() == []
    assert holm([0.02, 0.02, 0.02]).tolist() == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    with pytest.raises(MetricError, match=r"^Expected `p_values` in \[0, 1\], got nan at index 1\.$"):
        holm([0.5, np.nan])


def detectors(seed: int = 0, n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n // 2), 2)
    label = cluster % 2
    shared = rng.normal(size=n // 2)[cluster]
    first, second = (label * lift + shared + rng.normal(size=n) for lift in (1.6, 1.2))
    return label, first, second, cluster


def test_paired_bootstrap_equals_a_plain_loop_within_monte_carlo_error() -> None:
    label, first, second, cluster = detectors()
    result = paired_bootstrap("auroc", label, first, second, cluster, n_replicates=4000)
    rng, values = np.random.default_rng(1), []
    rows = {name: np.flatnonzero(cluster == name) for name in np.unique(cluster)}
    strata = [[name for name, r in rows.items() if label[r[0]] == wanted] for wanted in (0, 1)]
    for _ in range(600):
        real, generated = (np.concatenate([rows[name] for name in rng.choice(s, len(s))]) for s in strata)
        areas = [(logit[generated][:, None] > logit[real]).mean() for logit in (first, second)]
        values.append(areas[0] - areas[1])
    margin = 4 * 0.11 * np.std(values)
    low, high = np.quantile(values, [0.025, 0.975])
    assert result.difference == pytest.approx(roc_auc_score(label, first) - roc_auc_score(label, second))
    assert (result.ci_low, result.ci_high) == pytest.approx((low, high), abs=margin)


def test_paired_bootstrap_agrees_with_paired_delong() -> None:
    label, first, second, cluster = detectors(n=600)
    boot = paired_bootstrap("auroc", label, first, second, cluster, n_replicates=4000)
    closed = paired_delong(label, first, second, cluster=cluster)
    assert boot.difference == pytest.approx(closed.difference)
    assert (boot.ci_low, boot.ci_high) == pytest.approx((closed.ci_low, closed.ci_high), abs=0.006)
    assert boot.p_value == pytest.approx(closed.p_value, abs=0.03)


def test_paired_bootstrap_is_antisymmetric_and_uses_each_threshold() -> None:
    label, first, second, cluster = detectors()
    there = paired_bootstrap("tpr", label, first, second, cluster, threshold_a=0.5, threshold_b=0.0)
    assert there.difference == pytest.approx(np.mean(first[label == 1] >= 0.5) - np.mean(second[label == 1] >= 0.0))
    assert there.n == label.sum()
    with pytest.raises(ConfigError, match=r"^Expected `threshold` \(from `val`\) for metric 'tpr', got None\.$"):
        paired_bootstrap("tpr", label, first, second, cluster, threshold_a=0.5)


def test_the_same_detector_twice_has_no_difference() -> None:
    label, first, _, cluster = detectors()
    same = paired_bootstrap("auroc", label, first, first, cluster)
    assert (same.difference, same.ci_low, same.p_value) == (0.0, None, None)
    assert same.note == "interval not estimable: every replicate gave the same difference"


def test_paired_bootstrap_without_a_class_says_why() -> None:
    result = paired_bootstrap("auroc", [1, 1], [0, 1], [1, 0], [0, 1])
    assert (result.difference, result.note) == (None, "not estimable (n = 2: only generated images)")
