"""Least squares whose intervals respect clusters, and the test of whether groups have different slopes.

    y_i = x_i . b + e_i        b = (X'X)^-1 X'y
    V = c (X'X)^-1 ( sum_g s_g s_g' ) (X'X)^-1        s_g = X_g' e_g

`e_g` are the residuals of cluster `g`: images of one prompt share what the model does not explain, so the sum runs over
clusters and not over images (Liang and Zeger 1986). Residuals are smaller than errors; two corrections for that:

    cr1   c = G / (G - 1)  (N - 1) / (N - P)
    cr3   c = (G - 1) / G,  s_g = (I - X_g'X_g (X'X)^-1)^-1 X_g' e_g: the jackknife that leaves out one cluster a time

(Bell and McCaffrey 2002; MacKinnon, Nielsen and Webb 2023, who advise cr3.) With `G` clusters an interval uses the t
distribution with `G - 1` degrees of freedom, and a hypothesis `R b = 0` of `Q` rows is refused by Wald's statistic

    F = (R b)' (R V R')^-1 (R b) / Q        against the F distribution with Q and G - 1 degrees of freedom.

Simulated, nominal 95 % for a slope and 5 % for a true hypothesis of equal slopes (`tests/unit/metrics/
test_regression.py`):

    clusters x rows, groups    equal slopes refused, cr1, cr3    coverage of a slope, cr1, cr3
    20 x 1, 2                      9.5 %    3.9 %                     88 %    94 %
    30 x 1, 3                     14.3 %    5.8 %                     86 %    92 %
    60 x 1, 3                     10.9 %    5.9 %                     90 %    92 %
    60 x 3, 3                      7.2 %    5.0 %                     92 %    94 %
    150 x 1, 3                     7.3 %    5.3 %                     92 %    94 %

A slope covers better with the clusters of its own group less one as degrees of freedom (`contrast` takes `df`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.inputs import FloatArray, check_open_fraction, check_same_length, check_values
from forgery_det.metrics.resampling import Index, cluster_codes

Correction = Literal["cr1", "cr3"]

_CLUSTERS_AT_ONCE = 4096
# The determinant is the share of the information that remains without a cluster; 0 when a coefficient goes with it.
_SINGULAR = 1e-9


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum of coefficients.

    Attributes:
        value: The sum.
        standard_error: Its cluster-robust standard error.
        ci_low: Lower end of the interval.
        ci_high: Upper end of the interval.
        p_value: Two-sided, of a true value of 0.
    """

    value: float
    standard_error: float
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class WaldTest:
    """A joint test of several contrasts.

    Attributes:
        statistic: Wald's F.
        df_numerator: Number of contrasts.
        df_denominator: Clusters less one.
        p_value: Of all contrasts being 0.
    """

    statistic: float
    df_numerator: int
    df_denominator: int
    p_value: float


@dataclass(frozen=True, slots=True, eq=False)
class ClusterFit:
    """A fitted regression.

    Attributes:
        coefficient_P: In the order of the columns of the design.
        covariance_PP: Cluster-robust.
        n: Rows.
        n_clusters: Clusters.
    """

    coefficient_P: FloatArray
    covariance_PP: FloatArray
    n: int
    n_clusters: int

    def contrast(self, weight: ArrayLike, *, confidence: float = 0.95, df: int | None = None) -> Contrast:
        """Return a weighted sum of the coefficients with its t interval.

        Args:
            weight: One a coefficient, [P].
            confidence: Of the interval, in (0, 1).
            df: Degrees of freedom; None for clusters less one. Fewer where a sum rests on fewer clusters.
        """
        check_open_fraction(confidence, "confidence")
        weight_P = check_values(weight, "weight", finite=True)
        df = self.n_clusters - 1 if df is None else df
        value = float(weight_P @ self.coefficient_P)
        error = float(weight_P @ self.covariance_PP @ weight_P) ** 0.5
        half = float(stats.t.ppf(0.5 + confidence / 2.0, df)) * error
        p_value = float(2.0 * stats.t.sf(abs(value) / error, df)) if error > 0.0 else float(value == 0.0)
        return Contrast(value, error, value - half, value + half, p_value)

    def wald(self, restriction: ArrayLike) -> WaldTest:
        """Test that several contrasts are all 0.

        Args:
            restriction: One row a contrast, [Q, P].

        Raises:
            NotEstimableError: The rows depend on each other, or there are too few clusters for so many.
        """
        restriction_QP = np.atleast_2d(np.asarray(restriction, dtype=np.float64))
        q, df = len(restriction_QP), self.n_clusters - 1
        spread_QQ = restriction_QP @ self.covariance_PP @ restriction_QP.T
        if df < q or np.linalg.matrix_rank(spread_QQ) < q:
            raise NotEstimableError(
                f"not estimable (n = {self.n}: {self.n_clusters} clusters cannot test {q} contrasts at once)"
            )
        difference_Q = restriction_QP @ self.coefficient_P
        statistic = float(difference_Q @ np.linalg.solve(spread_QQ, difference_Q)) / q
        return WaldTest(statistic, q, df, float(stats.f.sf(statistic, q, df)))


def fit_clustered(
    design: ArrayLike, response: ArrayLike, cluster: ArrayLike, *, correction: Correction = "cr3"
) -> ClusterFit:
    """Fit a regression by least squares, with cluster-robust covariance.

    Args:
        design: One column a coefficient, the constant included, [N, P].
        response: [N].
        cluster: Group of each row (strings or integers), [N].
        correction: `cr1` or `cr3`.

    Raises:
        ConfigError: Unknown correction.
        MetricError: Unequal lengths, NaN or infinite values, missing clusters.
        NotEstimableError: Fewer rows than coefficients and one more, columns that depend on each other, fewer than
            two clusters, or (cr3) a coefficient that rests on one cluster alone.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0, 3.0])
        >>> fit = fit_clustered(np.stack([np.ones(4), x], axis=1), [1.0, 3.1, 4.9, 7.0], cluster=range(4))
        >>> fit.coefficient_P.round(2).tolist(), round(fit.contrast([0, 1]).standard_error, 3)
        ([1.03, 1.98], 0.04)
    """
    if correction not in ("cr1", "cr3"):
        raise ConfigError(f"Expected `correction` in {{cr1, cr3}}, got {correction!r}.")
    design_NP = np.asarray(design, dtype=np.float64)
    if design_NP.ndim != 2:
        raise MetricError(f"Expected `design` with 2 dimensions, got shape {design_NP.shape}.")
    check_values(design_NP.ravel(), "design", finite=True)
    response_N = check_values(response, "response", finite=True)
    code_N, n_clusters = cluster_codes(cluster)
    check_same_length(design=design_NP, response=response_N, cluster=code_N)
    n, p = design_NP.shape
    if n_clusters < 2:
        raise NotEstimableError(f"not estimable (n = {n}: {n_clusters} clusters, at least 2)")
    # Lengths differ by orders of magnitude between columns, so rank is judged on columns of unit length.
    length_P = np.linalg.norm(design_NP, axis=0)
    if n <= p or not length_P.all() or np.linalg.matrix_rank(design_NP / length_P) < p:
        raise NotEstimableError(f"not estimable (n = {n}: too few different rows for {p} coefficients)")
    coefficient_P = np.linalg.lstsq(design_NP, response_N, rcond=None)[0].astype(np.float64)
    residual_N = response_N - design_NP @ coefficient_P
    score_KP = np.zeros((n_clusters, p))
    np.add.at(score_KP, code_N, design_NP * residual_N[:, None])
    bread_PP = np.linalg.inv(design_NP.T @ design_NP).astype(np.float64)
    if correction == "cr1":
        factor = n_clusters / (n_clusters - 1) * (n - 1) / (n - p)
    else:
        factor = (n_clusters - 1) / n_clusters
        score_KP = _left_out(design_NP, code_N, score_KP, bread_PP)
    covariance_PP = factor * bread_PP @ score_KP.T @ score_KP @ bread_PP
    return ClusterFit(coefficient_P, covariance_PP, n, n_clusters)


def _left_out(design_NP: FloatArray, code_N: Index, score_KP: FloatArray, bread_PP: FloatArray) -> FloatArray:
    """Return what each cluster adds to `X'X b` beyond a fit without it, [K, P]."""
    n_clusters, p = score_KP.shape
    order_N = np.argsort(code_N, kind="stable")
    start_K = np.searchsorted(code_N[order_N], np.arange(n_clusters))
    adjusted_KP = np.empty_like(score_KP)
    for first in range(0, n_clusters, _CLUSTERS_AT_ONCE):
        last = min(first + _CLUSTERS_AT_ONCE, n_clusters)
        stop = start_K[last] if last < n_clusters else len(order_N)
        row_M = order_N[start_K[first] : stop]
        outer_MPP = design_NP[row_M, :, None] * design_NP[row_M, None, :]
        own_KPP = np.add.reduceat(outer_MPP, start_K[first:last] - start_K[first], axis=0)
        system_KPP = np.eye(p) - own_KPP @ bread_PP
        if (np.abs(np.linalg.det(system_KPP)) < _SINGULAR).any():
            raise NotEstimableError(f"not estimable (n = {len(code_N)}: a coefficient rests on one cluster alone)")
        adjusted_KP[first:last] = np.linalg.solve(system_KPP, score_KP[first:last, :, None])[..., 0]
    return adjusted_KP


@dataclass(frozen=True, slots=True, eq=False)
class SlopeDesign:
    """Design of `y ~ group x slope` in treatment coding: each group against the first one, the reference.

    Columns: 1, x, one indicator for each further group, and x times each indicator.

    Attributes:
        design_NP: [N, 2 L] for L groups.
        groups: The reference first.
    """

    design_NP: FloatArray
    groups: tuple[str, ...]

    def level(self, group: str, x: float) -> FloatArray:
        """Return the weights [P] of the fitted value of a group at `x`."""
        weight_P = np.zeros(2 * len(self.groups))
        weight_P[:2] = 1.0, x
        index = self.groups.index(group)
        if index:
            weight_P[1 + index] = 1.0
            weight_P[len(self.groups) + index] = x
        return weight_P

    def slope(self, group: str) -> FloatArray:
        """Return the weights [P] of the slope of a group."""
        return self.level(group, 1.0) - self.level(group, 0.0)

    def same_slopes(self) -> FloatArray:
        """Return the contrasts [L - 1, P] of the interaction: the slope of each further group less the reference's."""
        return np.stack([self.slope(group) - self.slope(self.groups[0]) for group in self.groups[1:]])


def slope_design(x: ArrayLike, group: Sequence[str], reference: str) -> SlopeDesign:
    """Build the design of one slope a group.

    Args:
        x: Explaining variable, [N].
        group: Group of each row, [N].
        reference: Group that the others are compared with.

    Raises:
        MetricError: No row is of the reference, or lengths differ.

    Example:
        >>> design = slope_design([1.0, 2.0, 3.0], ["a", "b", "b"], reference="a")
        >>> design.design_NP.tolist()
        [[1.0, 1.0, 0.0, 0.0], [1.0, 2.0, 1.0, 2.0], [1.0, 3.0, 1.0, 3.0]]
    """
    x_N, group_N = check_values(x, "x", finite=True), np.asarray(list(group), dtype=object)
    check_same_length(x=x_N, group=group_N)
    if reference not in set(group):
        raise MetricError(f"Expected `reference` among the groups {sorted(set(group))}, got {reference!r}.")
    groups = (reference, *sorted(set(group) - {reference}))
    indicators = [(group_N == name).astype(np.float64) for name in groups[1:]]
    columns = [np.ones(len(x_N)), x_N, *indicators, *(indicator * x_N for indicator in indicators)]
    return SlopeDesign(np.stack(columns, axis=1), groups)
