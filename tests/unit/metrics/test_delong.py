from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.delong import auroc_covariance, delong, paired_delong


def two_detectors(n: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    shared = rng.normal(size=n)
    first, second = (np.round(label * lift + shared + rng.normal(size=n), 1) for lift in (1.5, 1.0))
    return label, first, second


def kernel_covariance(label: np.ndarray, logits: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """DeLong 1988 as printed: the O(m n) kernel psi, its row and column means, and their sample covariances."""
    psi = []
    for logit in logits:
        x, y = logit[label == 1][:, None], logit[label == 0][None, :]
        psi.append((x > y) + 0.5 * (x == y))
    area = np.array([kernel.mean() for kernel in psi])
    rows, columns = [kernel.mean(axis=1) for kernel in psi], [kernel.mean(axis=0) for kernel in psi]
    return area, np.cov(rows) / len(rows[0]) + np.cov(columns) / len(columns[0])


def test_covariance_equals_the_printed_definition_under_ties() -> None:
    label, first, second = two_detectors()
    area, covariance = kernel_covariance(label, [first, second])
    found = auroc_covariance(label, [first, second])
    np.testing.assert_allclose(found.auroc, area, atol=1e-14)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-15)
    assert found.auroc[0] == pytest.approx(roc_auc_score(label, first))


def test_one_image_a_cluster_changes_nothing() -> None:
    label, first, second = two_detectors()
    shuffled = np.random.default_rng(1).permutation(len(label))
    np.testing.assert_allclose(
        auroc_covariance(label, [first, second], shuffled).covariance,
        auroc_covariance(label, [first, second]).covariance,
    )


def test_clusters_follow_the_printed_sums_of_obuchowski() -> None:
    """Obuchowski 1997, equations for clustered ROC data, written out cluster by cluster; clusters hold both classes."""
    label, logit, _ = two_detectors(90)
    cluster = np.arange(90) % 30
    x, y = logit[label == 1][:, None], logit[label == 0][None, :]
    psi = (x > y) + 0.5 * (x == y)
    area, m, n = psi.mean(), len(x), y.shape[1]
    v, w = np.zeros(90), np.zeros(90)
    v[label == 1], w[label == 0] = psi.mean(axis=1), psi.mean(axis=0)
    groups = [np.flatnonzero(cluster == name) for name in range(30)]
    dv = np.array([v[g][label[g] == 1].sum() - (label[g] == 1).sum() * area for g in groups])
    dw = np.array([w[g][label[g] == 0].sum() - (label[g] == 0).sum() * area for g in groups])
    with_v, with_w = sum((label[g] == 1).any() for g in groups), sum((label[g] == 0).any() for g in groups)
    expected = (
        with_v / ((with_v - 1) * m**2) * (dv**2).sum()
        + with_w / ((with_w - 1) * n**2) * (dw**2).sum()
        + 2 * 30 / (29 * m * n) * (dv * dw).sum()
    )
    assert auroc_covariance(label, [logit], cluster).covariance[0, 0] == pytest.approx(expected)


def test_interval_scales() -> None:
    label, first, _ = two_detectors()
    area, variance = kernel_covariance(label, [first, first])
    plain = delong(label, first, scale="plain")
    half = stats.norm.ppf(0.975) * np.sqrt(variance[0, 0])
    assert (plain.ci_low, plain.ci_high) == pytest.approx((area[0] - half, min(1.0, area[0] + half)))
    logit = delong(label, first)
    assert logit.ci_low < plain.ci_low
    assert logit.ci_high < plain.ci_high


def test_paired_test_equals_its_z_statistic() -> None:
    label, first, second = two_detectors()
    area, covariance = kernel_covariance(label, [first, second])
    z = (area[0] - area[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    result = paired_delong(label, first, second)
    assert result.p_value == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert result.difference == pytest.approx(area[0] - area[1])
    swapped = paired_delong(label, second, first)
    assert (swapped.difference, swapped.ci_low) == pytest.approx((-result.difference, -result.ci_high))


def test_a_variance_of_zero_is_no_certainty() -> None:
    perfect = delong([0] * 10 + [1] * 20, np.arange(30))
    assert perfect.ci_low == pytest.approx(stats.binomtest(10, 10).proportion_ci(method="exact").low)
    assert perfect.note == "variance 0 at 1: Clopper-Pearson on 10 pairs of clusters"
    constant = delong([0, 0, 1, 1], [3.0] * 4)
    assert (constant.value, constant.ci_low, constant.note) == (0.5, None, "interval not estimable: variance 0")
    label, first, _ = two_detectors()
    same = paired_delong(label, first, 2 * first + 1)
    assert (same.difference, same.ci_low, same.p_value) == (0.0, None, 1.0)


def test_what_cannot_be_estimated_says_why() -> None:
    assert delong([1, 1], [0, 1]).note == "not estimable (n = 2: only generated images)"
    assert delong([], []).note == "not estimable (n = 0: no images)"
    note = "not estimable (n = 3: 1 real and 2 generated clusters, at least 2 each)"
    assert delong([0, 1, 1], [0, 1, 2]).note == note
    assert paired_delong([0, 1, 1], [0, 1, 2], [0, 1, 2]).note == note
    with pytest.raises(ConfigError, match=r"^Expected `scale` in \{logit, plain\}, got 'probit'\.$"):
        delong([0, 1], [0, 1], scale="probit")
