from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.regression import ClusterFit, fit_clustered, slope_design


def made(seed: int = 0, n_clusters: int = 25, interaction: float = 0.0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Returns (words on a log scale, group, response, cluster): clusters of 1 to 4 rows that share an error."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n_clusters), rng.integers(1, 5, n_clusters))
    x = rng.normal(5, 1.5, n_clusters)[cluster] + rng.normal(0, 0.3, len(cluster))
    group = [("mllm", "diffusion")[i % 2] for i in range(len(cluster))]
    slope = np.where(np.array(group) == "mllm", 0.4 + interaction, 0.4)
    y = 1.0 + slope * x + rng.normal(size=n_clusters)[cluster] + rng.normal(size=len(cluster))
    return x, group, y, cluster


def fitted(correction: str = "cr3", **kwargs) -> ClusterFit:
    x, group, y, cluster = made(**kwargs)
    return fit_clustered(slope_design(x, group, "diffusion").design_NP, y, cluster, correction=correction)


def test_coefficients_are_those_of_scikit_learn() -> None:
    x, group, y, cluster = made()
    design = slope_design(x, group, "diffusion").design_NP
    expected = LinearRegression(fit_intercept=False).fit(design, y).coef_
    np.testing.assert_allclose(fit_clustered(design, y, cluster).coefficient_P, expected, rtol=1e-9)


def test_cr1_is_the_textbook_sandwich() -> None:
    x, group, y, cluster = made()
    design = slope_design(x, group, "diffusion").design_NP
    n, p = design.shape
    hat = design @ np.linalg.pinv(design)
    residual = y - hat @ y
    # the same meat as one big matrix: products of residuals, kept where both rows are of one cluster
    same = cluster[:, None] == cluster[None, :]
    meat = design.T @ (np.outer(residual, residual) * same) @ design
    bread = np.linalg.pinv(design.T @ design)
    g = len(set(cluster.tolist()))
    expected = g / (g - 1) * (n - 1) / (n - p) * bread @ meat @ bread
    np.testing.assert_allclose(fitted("cr1").covariance_PP, expected, rtol=1e-8)


def test_cr3_is_the_jackknife_that_leaves_clusters_out() -> None:
    x, group, y, cluster = made()
    design = slope_design(x, group, "diffusion").design_NP
    whole = np.linalg.lstsq(design, y, rcond=None)[0]
    without = [np.linalg.lstsq(design[cluster != g], y[cluster != g], rcond=None)[0] for g in np.unique(cluster)]
    away = np.stack(without) - whole
    expected = (len(without) - 1) / len(without) * away.T @ away
    np.testing.assert_allclose(fitted("cr3").covariance_PP, expected, rtol=1e-7)


@pytest.mark.parametrize("correction", ["cr1", "cr3"])
def test_row_order_and_cluster_names_change_nothing(correction: str) -> None:
    x, group, y, cluster = made()
    order = np.random.default_rng(3).permutation(len(x))
    names = np.array([f"prompt-{c}" for c in cluster], dtype=object)
    mixed = fit_clustered(
        slope_design(x[order], [group[i] for i in order], "diffusion").design_NP,
        y[order],
        names[order],
        correction=correction,
    )
    np.testing.assert_allclose(mixed.covariance_PP, fitted(correction).covariance_PP, rtol=1e-8)


def test_a_wald_test_of_one_contrast_is_the_squared_t() -> None:
    x, group, _, _ = made()
    design = slope_design(x, group, "diffusion")
    fit = fitted()
    test, contrast = fit.wald(design.same_slopes()), fit.contrast(design.same_slopes()[0])
    assert test.statistic == pytest.approx((contrast.value / contrast.standard_error) ** 2)
    assert test.p_value == pytest.approx(contrast.p_value)
    assert (test.df_numerator, test.df_denominator) == (1, 24)


def test_slopes_by_group_are_those_of_separate_fits() -> None:
    x, group, y, _ = made()
    design, fit = slope_design(x, group, "diffusion"), fitted()
    for name in ("diffusion", "mllm"):
        rows = np.array(group) == name
        slope, level = np.polyfit(x[rows], y[rows], 1)
        assert fit.contrast(design.slope(name)).value == pytest.approx(slope)
        assert fit.contrast(design.level(name, 6.0)).value == pytest.approx(level + 6.0 * slope)


def test_the_coding_does_not_change_the_test() -> None:
    x, group, y, cluster = made(interaction=0.3)
    values = []
    for reference in ("mllm", "diffusion"):
        design = slope_design(x, group, reference)
        assert design.groups[0] == reference
        values.append(fit_clustered(design.design_NP, y, cluster).wald(design.same_slopes()).statistic)
    assert values[0] == pytest.approx(values[1])


def refused(n_simulations: int, interaction: float, n_clusters: int) -> tuple[float, float]:
    """Returns how often equal slopes are refused at 5 %, and how often the interval of a slope holds the truth."""
    rejected = covered = 0
    for seed in range(n_simulations):
        x, group, y, cluster = made(seed + 1, n_clusters, interaction)
        design = slope_design(x, group, "diffusion")
        fit = fit_clustered(design.design_NP, y, cluster)
        rejected += fit.wald(design.same_slopes()).p_value < 0.05
        slope = fit.contrast(design.slope("diffusion"))
        covered += slope.ci_low <= 0.4 <= slope.ci_high
    return rejected / n_simulations, covered / n_simulations


def test_a_planted_interaction_is_found_and_none_is_not() -> None:
    found, _ = refused(100, interaction=0.5, n_clusters=60)
    none, covered = refused(300, interaction=0.0, n_clusters=60)
    assert found > 0.8
    assert 0.02 <= none <= 0.09
    assert 0.91 <= covered <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [30, 100])
def test_rates_are_near_nominal(n_clusters: int) -> None:
    rejected, covered = refused(4000, interaction=0.0, n_clusters=n_clusters)
    assert 0.035 <= rejected <= 0.065
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("design", "response", "cluster", "error", "text"),
    [
        (np.ones((3, 1)), [1.0, 2.0, 3.0], [0, 0, 0], NotEstimableError, "1 clusters, at least 2"),
        (np.ones((3, 2)), [1.0, 2.0, 3.0], [0, 1, 2], NotEstimableError, "too few different rows for 2 coefficients"),
        (np.ones((1, 1)), [1.0], [0], NotEstimableError, "n = 1: 1 clusters"),
        (np.eye(3), [1.0, 2.0, 3.0], [0, 1, 2], NotEstimableError, "too few different rows"),
        (np.ones((2, 1)), [1.0, np.nan], [0, 1], MetricError, "without NaN"),
        (np.ones((2, 1)), [1.0, np.inf], [0, 1], MetricError, "finite"),
        (np.ones((2, 1)), [1.0], [0, 1], MetricError, "equal length"),
        (np.ones(2), [1.0, 2.0], [0, 1], MetricError, "2 dimensions"),
    ],
)
def test_what_cannot_be_fitted_is_said(design, response, cluster, error, text) -> None:
    with pytest.raises(error, match=text):
        fit_clustered(design, response, cluster)


def test_a_coefficient_on_one_cluster_alone_has_no_cr3() -> None:
    design = np.stack([np.ones(5), [0, 0, 0, 1, 1]], axis=1)
    with pytest.raises(NotEstimableError, match="rests on one cluster alone"):
        fit_clustered(design, [1.0, 2.0, 3.0, 4.0, 6.0], [0, 1, 2, 3, 3])
    with pytest.raises(ConfigError, match=r"Expected `correction` in \{cr1, cr3\}"):
        fit_clustered(design, np.arange(5.0), np.arange(5), correction="hc1")  # type: ignore[arg-type]


def test_more_contrasts_than_clusters_are_refused() -> None:
    fit = fitted(n_clusters=4, seed=1)
    with pytest.raises(NotEstimableError, match="4 clusters cannot test 4 contrasts at once"):
        fit.wald(np.eye(4))


def test_a_response_without_noise_has_an_interval_without_width() -> None:
    x = np.arange(6.0)
    fit = fit_clustered(np.stack([np.ones(6), x], axis=1), np.zeros(6), range(6))
    slope = fit.contrast([0.0, 1.0])
    assert (slope.value, slope.ci_low, slope.ci_high, slope.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_many_clusters_are_fitted_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted()
    monkeypatch.setattr("forgery_det.metrics.regression._CLUSTERS_AT_ONCE", 7)
    np.testing.assert_allclose(fitted().covariance_PP, whole.covariance_PP, rtol=1e-10)


def test_an_unknown_reference_is_an_error() -> None:
    with pytest.raises(MetricError, match="Expected `reference` among the groups"):
        slope_design([1.0, 2.0], ["a", "b"], "c")
