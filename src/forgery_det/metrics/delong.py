"""AUROC with a closed-form interval, and the paired test of two AUROCs: DeLong, also for grouped images.

With `R` the mid-rank among all images and `R_y` the mid-rank within the own class, the placement values are

    V_i = (R(x_i) - R_1(x_i)) / n      share of real images below generated image i, ties half
    W_j = 1 - (R(y_j) - R_0(y_j)) / m  share of generated images above real image j, ties half

AUROC is the mean of either, and `var = var(V) / m + var(W) / n` (DeLong, DeLong and Clarke-Pearson 1988; mid-ranks make
it O(N log N): Sun and Xu 2014). Images of one cluster are not independent: given clusters, deviations are first summed
by cluster, and a cluster that holds both classes adds a covariance (Obuchowski 1997). One image a cluster gives back
DeLong.

The interval is built on the scale of `ln(A / (1 - A))`, so it stays inside (0, 1) and covers better near 1;
`scale="plain"` gives `A +- z se`. With fewer than about 20 clusters in a class it covers better than the bootstrap (the
table in `bootstrap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import (
    FloatArray,
    IntArray,
    check_label_logit,
    check_open_fraction,
    check_same_length,
    not_estimable,
)
from forgery_det.metrics.intervals import clopper_pearson
from forgery_det.metrics.resampling import Index, cluster_codes

Scale = Literal["logit", "plain"]


@dataclass(frozen=True, slots=True)
class AurocCovariance:
    """AUROC of D detectors on the same images, and how they vary together.

    Attributes:
        auroc: One a detector, [D].
        covariance: Of the AUROCs, [D, D].
        n: Images.
        n_real: Real clusters (images, if no clusters were given).
        n_generated: Generated clusters.
    """

    auroc: FloatArray
    covariance: FloatArray
    n: int
    n_real: int
    n_generated: int


def auroc_covariance(label: ArrayLike, logits: list[ArrayLike], cluster: ArrayLike | None = None) -> AurocCovariance:
    """Return the AUROC of each detector and their covariance.

    Args:
        label: 0 or 1, [N].
        logits: One array [N] a detector, for the same images in the same order.
        cluster: Group of each image [N]; None if the images are independent.

    Raises:
        MetricError: wrong label, NaN, unequal lengths, missing clusters.
        NotEstimableError: a class is missing, or has one cluster only.

    Example:
        >>> found = auroc_covariance([0, 0, 0, 1, 1, 1], [[1, 2, 4, 3, 5, 6]])
        >>> found.auroc.round(4).tolist(), found.covariance.round(4).tolist()
        ([0.8889], [[0.0247]])
    """
    checked = [check_label_logit(label, logit) for logit in logits]
    label_N = checked[0][0]
    code_N, n_clusters = cluster_codes(np.arange(len(label_N)) if cluster is None else cluster)
    check_same_length(label=label_N, cluster=code_N)
    n_generated, n_real = int(label_N.sum()), int((1 - label_N).sum())
    if not (n_generated and n_real):
        raise not_estimable(n_real, n_generated)
    clusters = [len(np.unique(code_N[label_N == wanted])) for wanted in (0, 1)]
    if min(clusters) < 2:
        raise NotEstimableError(
            f"not estimable (n = {len(label_N)}: {clusters[0]} real and {clusters[1]} generated clusters, "
            "at least 2 each)"
        )
    parts = [_deviations(label_N, logit_N, code_N, n_clusters) for _, logit_N in checked]
    above_DK, below_DK = (np.stack([part[side] for part in parts]) for side in (1, 2))
    covariance = _cluster_covariance(above_DK, below_DK, clusters)
    auroc_D = np.array([part[0] for part in parts])
    return AurocCovariance(auroc_D, covariance, len(label_N), clusters[0], clusters[1])


def delong(
    label: ArrayLike,
    logit: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    confidence: float = 0.95,
    scale: Scale = "logit",
) -> Estimate:
    """Return AUROC with its DeLong interval.

    A variance of 0 is no certainty: at AUROC 0 or 1 the interval is Clopper-Pearson on the pairs of clusters, as in
    `bootstrap`; otherwise (constant logits) there is none. `Estimate.note` says which.

    Args:
        label: 0 or 1, [N].
        logit: Higher = generated, [N].
        cluster: Group of each image [N]; None if the images are independent.
        confidence: Of the two-sided interval, in (0, 1).
        scale: `logit` or `plain`.

    Raises:
        ConfigError: `confidence` outside (0, 1), unknown scale.
        MetricError: wrong label, NaN, unequal lengths, missing clusters.

    Example:
        >>> estimate = delong([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6])
        >>> round(estimate.value, 4), round(estimate.ci_low, 4), round(estimate.ci_high, 4)
        (0.8889, 0.2614, 0.9945)
    """
    check_open_fraction(confidence, "confidence")
    if scale not in ("logit", "plain"):
        raise ConfigError(f"Expected `scale` in {{logit, plain}}, got {scale!r}.")
    try:
        found = auroc_covariance(label, [logit], cluster)
    except NotEstimableError as error:
        return Estimate.missing(len(np.asarray(label)), str(error))
    value, variance = float(found.auroc[0]), float(found.covariance[0, 0])
    if value in (0.0, 1.0):
        m = min(found.n_real, found.n_generated)
        bound = clopper_pearson(m if value == 1.0 else 0, m, confidence)
        return Estimate(
            value, bound.low, bound.high, found.n, f"variance 0 at {value:g}: Clopper-Pearson on {m} pairs of clusters"
        )
    if variance <= 0.0:
        return Estimate(value, None, None, found.n, "interval not estimable: variance 0")
    z, spread = float(special.ndtri(0.5 + confidence / 2.0)), variance**0.5
    if scale == "plain":
        return Estimate(value, max(0.0, value - z * spread), min(1.0, value + z * spread), found.n)
    centre, half = float(special.logit(value)), z * spread / (value * (1.0 - value))
    return Estimate(value, float(special.expit(centre - half)), float(special.expit(centre + half)), found.n)


def paired_delong(
    label: ArrayLike,
    logit_a: ArrayLike,
    logit_b: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare the AUROCs of two detectors on the same images; `difference` is a - b.

    Args:
        label: 0 or 1, [N].
        logit_a: Of the first detector, [N].
        logit_b: Of the second detector on the same images, [N].
        cluster: Group of each image [N]; None if the images are independent.
        confidence: Of the two-sided interval, in (0, 1).

    Raises:
        ConfigError: `confidence` outside (0, 1).
        MetricError: wrong label, NaN, unequal lengths, missing clusters.

    Example:
        >>> result = paired_delong([0, 0, 0, 1, 1, 1], [1, 2, 4, 3, 5, 6], [3, 1, 2, 2, 5, 1])
        >>> round(result.difference, 4), round(result.p_value, 4)
        (0.3333, 0.2733)
    """
    check_open_fraction(confidence, "confidence")
    try:
        found = auroc_covariance(label, [logit_a, logit_b], cluster)
    except NotEstimableError as error:
        return Comparison.missing(len(np.asarray(label)), str(error))
    contrast = np.array([1.0, -1.0])
    difference, variance = float(contrast @ found.auroc), float(contrast @ found.covariance @ contrast)
    # Two detectors with the same ranking leave rounding errors of about 1e-17 in the variance.
    if variance <= 1e-15:
        p_value = 1.0 if abs(difference) < 1e-12 else None
        return Comparison(difference, None, None, p_value, found.n, "interval not estimable: variance 0")
    spread = variance**0.5
    z = float(special.ndtri(0.5 + confidence / 2.0))
    p_value = float(2.0 * special.ndtr(-abs(difference) / spread))
    return Comparison(difference, difference - z * spread, difference + z * spread, p_value, found.n)


def _deviations(
    label_N: IntArray, logit_N: FloatArray, code_N: Index, n_clusters: int
) -> tuple[float, FloatArray, FloatArray]:
    """Return AUROC and, by cluster [K], the summed deviations of V and W from it, each over its number of images."""
    positive_N, negative_N = label_N == 1, label_N == 0
    n_positive, n_negative = int(positive_N.sum()), int(negative_N.sum())
    rank_N = stats.rankdata(logit_N)
    above = (rank_N[positive_N] - stats.rankdata(logit_N[positive_N])) / n_negative
    below = 1.0 - (rank_N[negative_N] - stats.rankdata(logit_N[negative_N])) / n_positive
    auroc = float(above.mean())
    above_K = np.bincount(code_N[positive_N], weights=above - auroc, minlength=n_clusters) / n_positive
    below_K = np.bincount(code_N[negative_N], weights=below - auroc, minlength=n_clusters) / n_negative
    return auroc, above_K, below_K


def _cluster_covariance(above_DK: FloatArray, below_DK: FloatArray, clusters: list[int]) -> FloatArray:
    """Return the covariance [D, D]; each sum of squares has the small-sample factor of its number of clusters."""
    n_real, n_generated = clusters
    n_both = above_DK.shape[1]
    cross = above_DK @ below_DK.T
    return np.asarray(
        above_DK @ above_DK.T * n_generated / (n_generated - 1)
        + below_DK @ below_DK.T * n_real / (n_real - 1)
        + (cross + cross.T) * n_both / max(n_both - 1, 1)
    )
