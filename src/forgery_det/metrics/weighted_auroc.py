"""A weighted sum of AUROCs on the same images, with its interval: an area under a curve of AUROCs, or a contrast.

With `A_D` the AUROCs of D sets of logits for the same N images, `C_DD` their covariance (DeLong et al. 1988, with
clusters as in `delong`) and `w_D` the weights,

    value = w . A        variance = w' C w

so what the D columns share is accounted for. Where the weights sum to 1 and none is negative the value is an average of
AUROCs, and its interval is made on the logit scale, as that of one AUROC; otherwise it is plain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from forgery_det.metrics.delong import auroc_covariance
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import check_open_fraction

_NO_VARIANCE = 1e-15
"""Equal rankings leave rounding errors of about 1e-17 in a variance that is 0."""


def weighted_auroc(
    label: ArrayLike,
    logits: Sequence[ArrayLike],
    weights: Sequence[float],
    *,
    cluster: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Return `w . A` with its DeLong interval.

    Args:
        label: 0 or 1, [N].
        logits: D arrays [N], for the same images in the same order.
        weights: One for each array.
        cluster: Group of each image [N]; None if the images are independent.
        confidence: Of the two-sided interval, in (0, 1).

    Raises:
        ConfigError: `confidence` outside (0, 1).
        MetricError: wrong label, NaN, unequal lengths, missing clusters, or not one weight an array.

    Example:
        >>> estimate = weighted_auroc([0, 0, 0, 1, 1, 1], [[1, 2, 4, 3, 5, 6], [3, 1, 2, 2, 5, 1]], [0.5, 0.5])
        >>> round(estimate.value, 4), estimate.ci_low < estimate.value < estimate.ci_high
        (0.7222, True)
    """
    check_open_fraction(confidence, "confidence")
    if len(weights) != len(logits) or not weights:
        raise MetricError(f"Expected one weight for each of the {len(logits)} sets of logits, got {len(weights)}.")
    try:
        found = auroc_covariance(label, list(logits), cluster)
    except NotEstimableError as error:
        return Estimate.missing(len(np.asarray(label)), str(error))
    weight_D = np.asarray(weights, dtype=np.float64)
    value, variance = float(weight_D @ found.auroc), float(weight_D @ found.covariance @ weight_D)
    if variance <= _NO_VARIANCE:
        return Estimate(value, None, None, found.n, "interval not estimable: variance 0")
    half = float(special.ndtri(0.5 + confidence / 2.0)) * variance**0.5
    is_average = abs(weight_D.sum() - 1.0) < 1e-9 and bool((weight_D >= 0.0).all())
    if not is_average:
        return Estimate(value, value - half, value + half, found.n)
    centre, half = float(special.logit(value)), half / (value * (1.0 - value))
    return Estimate(value, float(special.expit(centre - half)), float(special.expit(centre + half)), found.n)
