"""A threshold to ship, with what may be promised about its false alarms.

With `n` real images on `val` and a target FPR, `k = floor(target n)` false alarms are allowed. The FPR that the
threshold will have on new images is at most

    B(confidence; k + 1, n - k)        quantile of the beta distribution: the Clopper-Pearson bound for k of n

with that confidence. The bound holds although the threshold was chosen on the same images: a threshold above the
(k+1)-th highest of `n` real logits has an FPR that is at most Beta(k + 1, n - k) distributed, for any distribution of
logits (Wilks 1941). `k` is what the rule allows, not what ties happened to leave, or the bound would not hold.

To promise the target itself, ask for `guaranteed=True`: `k` is then the largest number whose bound is at most the
target. That needs `n >= ln(1 - confidence) / ln(1 - target)` real images: 299 for 1 % at 95 %. Images count as
independent; for groups (crops of one photo) pass one image a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.metrics.counts import score_counts
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import check_open_fraction
from forgery_det.metrics.intervals import upper_bound
from forgery_det.metrics.thresholded import threshold_at_fpr


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold and its rates on the images it was chosen on.

    Attributes:
        threshold: Decision `logit >= threshold`.
        target_fpr: What was asked for.
        fpr: Share of real images called generated on `val`.
        fpr_upper: With `confidence`, the FPR on new images is not higher.
        confidence: Of `fpr_upper`, one-sided.
        tpr: Share of generated images called generated on `val`; None without generated images.
        n_real: Real images on `val`.
        n_generated: Generated images on `val`.
    """

    threshold: float
    target_fpr: float
    fpr: float
    fpr_upper: float
    confidence: float
    tpr: float | None
    n_real: int
    n_generated: int


def operating_point(
    label: ArrayLike, logit: ArrayLike, target_fpr: float, *, confidence: float = 0.95, guaranteed: bool = False
) -> OperatingPoint:
    """Choose a threshold on `val` for a target FPR, and bound the FPR it will have.

    Args:
        label: 0 or 1, [N].
        logit: Higher = generated, [N].
        target_fpr: In (0, 1).
        confidence: Of the bound, in (0, 1).
        guaranteed: Make the bound, not the empirical FPR, at most `target_fpr`.

    Raises:
        ConfigError: `target_fpr` or `confidence` outside (0, 1).
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: no real images; too few of them for a guarantee; too many at +inf.

    Example:
        >>> import numpy as np
        >>> label, logit = np.repeat([0, 1], [1000, 2]), np.concatenate([np.arange(1000.0), [995.0, 2000.0]])
        >>> point = operating_point(label, logit, 0.01)
        >>> point.threshold, point.fpr, round(point.fpr_upper, 4)
        (990.0, 0.01, 0.0169)
        >>> point = operating_point(label, logit, 0.01, guaranteed=True)
        >>> point.threshold, point.fpr, round(point.fpr_upper, 4)
        (996.0, 0.004, 0.0091)
    """
    check_open_fraction(target_fpr, "target_fpr")
    check_open_fraction(confidence, "confidence")
    counts = score_counts(label, logit)
    counts.require("real")
    n_real, n_generated = int(counts.n_negative()[0]), int(counts.n_positive()[0])
    allowed = _guaranteed_count(n_real, target_fpr, confidence) if guaranteed else int(target_fpr * n_real + 1e-9)
    threshold = threshold_at_fpr(label, logit, allowed / n_real)
    called_G = counts.value >= threshold
    false_alarms, hits = float(counts.negative[0, called_G].sum()), float(counts.positive[0, called_G].sum())
    return OperatingPoint(
        threshold,
        target_fpr,
        false_alarms / n_real,
        upper_bound(allowed, n_real, confidence),
        confidence,
        hits / n_generated if n_generated else None,
        n_real,
        n_generated,
    )


def _guaranteed_count(n_real: int, target_fpr: float, confidence: float) -> int:
    """Return the largest number of false alarms whose bound is at most the target."""
    if upper_bound(0, n_real, confidence) > target_fpr:
        needed = int(np.ceil(np.log(1.0 - confidence) / np.log(1.0 - target_fpr)))
        raise NotEstimableError(
            f"not estimable (n = {n_real}: FPR <= {target_fpr:g} with confidence {confidence:g} "
            f"needs at least {needed} real images)"
        )
    low, high = 0, n_real
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(middle, n_real, confidence) <= target_fpr else (low, middle)
    return low
