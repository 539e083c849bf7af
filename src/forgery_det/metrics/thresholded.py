"""Metrics of a decision, the thresholds that make it, and single points of the ROC curve.

The decision is always `logit >= threshold` -> generated.

    TPR = called generated / generated      FPR = called generated / real      balanced accuracy = (TPR + 1 - FPR) / 2

Thresholds are chosen on `val` and applied to `test`. Both rules return a logit that was observed on `val`: of all
thresholds with the same decisions on `val` it is the strictest one, so it leaves the widest gap below for rounding
errors.

The partial area is standardised as McClish (1989): 0.5 for a useless and 1 for a perfect detector on FPR in [0,
max_fpr]. The equal error rate is where the straight-line ROC curve crosses FPR = 1 - TPR.
Pd@FAR is the highest TPR of a threshold whose FPR does not exceed the allowed false alarm rate (no interpolation).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.metrics.counts import ClassCounts, at_or_above, score_counts
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import FloatArray, check_fraction, check_open_fraction
from forgery_det.metrics.ranking import roc_points


def allowed_count(target: float, n: FloatArray) -> FloatArray:
    """Largest whole number of `n` images whose share is at most `target`; 0.29 of 100 is 29 despite rounding."""
    return np.asarray(np.floor(target * n + 1e-9))


def threshold_at_fpr(label: ArrayLike, logit: ArrayLike, target_fpr: float) -> float:
    """Smallest observed logit whose empirical FPR is at most `target_fpr`; ties are never split.

    If real images are tied at the top and even the highest logit lets too many through, the answer is the next float
    above the highest logit: nothing is called generated. With fewer than 1 / target_fpr real images the empirical FPR
    is 0, which says little about the true one; `operating_points` bounds it.

    Args:
        label: 0 or 1, [N]. Only real images are required, but generated ones add candidate thresholds.
        logit: Higher = generated, [N].
        target_fpr: Allowed share of real images called generated, in [0, 1].

    Raises:
        ConfigError: `target_fpr` outside [0, 1].
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: no real images, or too many real images at +inf.

    Example:
        >>> threshold_at_fpr([0, 0, 0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0, 2.5, 4.0], target_fpr=0.25)
        2.5
    """
    check_fraction(target_fpr, "target_fpr")
    counts = score_counts(label, logit)
    counts.require("real")
    false_alarm_G = at_or_above(counts.negative)[0]
    passing = np.flatnonzero(false_alarm_G <= allowed_count(target_fpr, counts.n_negative()))
    if passing.size:
        return float(counts.value[passing[0]])
    highest = counts.value[-1]
    if np.isposinf(highest):
        raise NotEstimableError(
            f"not estimable (n = {len(np.asarray(logit))}: {int(false_alarm_G[-1])} real images have logit +inf, "
            f"more than FPR {target_fpr:g} allows)"
        )
    return float(np.nextafter(highest, np.inf))


def threshold_balanced(label: ArrayLike, logit: ArrayLike) -> float:
    """Observed logit that maximises balanced accuracy; of equally good ones the highest (fewest false alarms).

    Raises:
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> threshold_balanced([0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0])
        2.0
    """
    counts = score_counts(label, logit)
    counts.require("both")
    n_negative, n_positive = counts.n_negative()[0], counts.n_positive()[0]
    # TPR - FPR over a common denominator: whole numbers, so equal candidates compare equal.
    gain_G = at_or_above(counts.positive)[0] * n_negative - at_or_above(counts.negative)[0] * n_positive
    return float(counts.value[np.flatnonzero(gain_G == gain_G.max())[-1]])


def tpr(label: ArrayLike, logit: ArrayLike, threshold: float) -> float:
    """Share of generated images called generated, in [0, 1].

    Raises:
        ConfigError: the threshold is NaN.
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: no generated images.

    Example:
        >>> tpr([0, 1, 1], [3.0, 1.0, 2.0], threshold=2.0)
        0.5
    """
    return float(tpr_of(score_counts(label, logit, threshold=threshold))[0])


def tpr_of(counts: ClassCounts) -> FloatArray:
    """TPR of each replicate, [R], from two cells."""
    counts.require("generated")
    return np.asarray(counts.positive[:, 1] / counts.n_positive())


def fpr(label: ArrayLike, logit: ArrayLike, threshold: float) -> float:
    """Share of real images called generated, in [0, 1].

    Raises:
        ConfigError: the threshold is NaN.
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: no real images.

    Example:
        >>> fpr([0, 0, 1], [3.0, 1.0, 2.0], threshold=2.0)
        0.5
    """
    return float(fpr_of(score_counts(label, logit, threshold=threshold))[0])


def fpr_of(counts: ClassCounts) -> FloatArray:
    """FPR of each replicate, [R], from two cells."""
    counts.require("real")
    return np.asarray(counts.negative[:, 1] / counts.n_negative())


def balanced_accuracy(label: ArrayLike, logit: ArrayLike, threshold: float) -> float:
    """Mean of the share of each class that is called right, in [0, 1]; 0.5 for a coin or a constant answer.

    Raises:
        ConfigError: the threshold is NaN.
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> balanced_accuracy([0, 0, 0, 1], [0.0, 1.0, 2.0, 3.0], threshold=2.0)
        0.8333333333333333
    """
    return float(balanced_accuracy_of(score_counts(label, logit, threshold=threshold))[0])


def balanced_accuracy_of(counts: ClassCounts) -> FloatArray:
    """Balanced accuracy of each replicate, [R], from two cells."""
    counts.require("both")
    right_negative_R = counts.negative[:, 0] / counts.n_negative()
    return np.asarray(0.5 * (counts.positive[:, 1] / counts.n_positive() + right_negative_R))


def accuracy(label: ArrayLike, logit: ArrayLike, threshold: float) -> float:
    """Share of all images that are called right, in [0, 1]; moves with the share of generated images.

    Raises:
        ConfigError: the threshold is NaN.
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: no images.

    Example:
        >>> accuracy([0, 0, 0, 1], [0.0, 1.0, 2.0, 3.0], threshold=2.0)
        0.75
    """
    return float(accuracy_of(score_counts(label, logit, threshold=threshold))[0])


def accuracy_of(counts: ClassCounts) -> FloatArray:
    """Accuracy of each replicate, [R], from two cells."""
    counts.require("any")
    right_R = counts.positive[:, 1] + counts.negative[:, 0]
    return np.asarray(right_R / (counts.n_positive() + counts.n_negative()))


def eer(label: ArrayLike, logit: ArrayLike) -> float:
    """Equal error rate in [0, 1]: the rate at which FPR equals the miss rate on the straight-line ROC curve.

    Raises:
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> eer([0, 0, 0, 1, 1, 1], [0, 1, 4, 2, 3, 5])
        0.3333333333333333
    """
    return float(eer_of(score_counts(label, logit))[0])


def eer_of(counts: ClassCounts) -> FloatArray:
    """Equal error rate of each replicate, [R]."""
    fpr_RG, tpr_RG = roc_points(counts)
    # FPR - miss rate rises from -1 to +1; the crossing lies on the step that ends at the first value >= 0.
    excess_RG = fpr_RG + tpr_RG - 1.0
    rows, end_R = np.arange(len(excess_RG)), np.argmax(excess_RG >= 0.0, axis=1)
    start_R = end_R - 1
    low_R, high_R = excess_RG[rows, start_R], excess_RG[rows, end_R]
    share_R = -low_R / (high_R - low_R)
    return np.asarray(fpr_RG[rows, start_R] + share_R * (fpr_RG[rows, end_R] - fpr_RG[rows, start_R]))


def pd_at_far(label: ArrayLike, logit: ArrayLike, far: float) -> float:
    """Probability of detection at a false alarm rate: the best TPR of any threshold with FPR <= `far`.

    The threshold is chosen on the same data, so this describes the ROC curve. For a decision that will be used, take
    the threshold from `val` (`threshold_at_fpr`) and report `tpr` and `fpr` at it.

    Args:
        label: 0 or 1, [N].
        logit: Higher = generated, [N].
        far: Allowed share of real images called generated, in [0, 1].

    Raises:
        ConfigError: `far` outside [0, 1].
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> pd_at_far([0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 5, 3, 4, 6, 7], far=0.0)
        0.5
        >>> pd_at_far([0, 0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 5, 3, 4, 6, 7], far=0.25)
        1.0
    """
    return float(pd_at_far_of(score_counts(label, logit), far)[0])


def pd_at_far_of(counts: ClassCounts, far: float) -> FloatArray:
    """Pd@FAR of each replicate, [R]."""
    check_fraction(far, "far")
    counts.require("both")
    false_alarm_RG = at_or_above(counts.negative)
    allowed_RG = false_alarm_RG <= allowed_count(far, counts.n_negative())[:, None]
    return np.asarray(np.where(allowed_RG, counts.positive, 0.0).sum(axis=1) / counts.n_positive())


def partial_auroc(label: ArrayLike, logit: ArrayLike, max_fpr: float = 0.1) -> float:
    """Area under the ROC curve for FPR in [0, max_fpr], standardised to 0.5 (useless) .. 1 (perfect).

    `(1 + (area - low) / (max_fpr - low)) / 2` with `low = max_fpr^2 / 2`, the area under the diagonal.

    Args:
        label: 0 or 1, [N].
        logit: Higher = generated, [N].
        max_fpr: Right end of the range, in (0, 1).

    Raises:
        ConfigError: `max_fpr` outside (0, 1).
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> partial_auroc([0, 0, 1, 1], [0.0, 1.0, 2.0, 3.0], max_fpr=0.2)
        1.0
    """
    return float(partial_auroc_of(score_counts(label, logit), max_fpr)[0])


def partial_auroc_of(counts: ClassCounts, max_fpr: float) -> FloatArray:
    """Standardised partial area of each replicate, [R]."""
    check_open_fraction(max_fpr, "max_fpr")
    fpr_RG, tpr_RG = roc_points(counts)
    width_RG = np.diff(fpr_RG, axis=1)
    inside_RG = np.clip(max_fpr - fpr_RG[:, :-1], 0.0, width_RG)
    # Share of each step that lies left of max_fpr; a vertical step has no width and adds no area.
    share_RG = np.divide(inside_RG, width_RG, out=np.zeros_like(width_RG), where=width_RG > 0)
    height_RG = tpr_RG[:, :-1] + 0.5 * share_RG * np.diff(tpr_RG, axis=1)
    area_R = np.einsum("rg,rg->r", inside_RG, height_RG)
    low = 0.5 * max_fpr**2
    return np.asarray(0.5 * (1.0 + (area_R - low) / (max_fpr - low)))


OPERATING_POINT_RULES: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "fpr_1pct": partial(threshold_at_fpr, target_fpr=0.01),
    "fpr_5pct": partial(threshold_at_fpr, target_fpr=0.05),
    "balanced": threshold_balanced,
}
"""Operating point -> how its threshold is fitted on the labels and logits of `val`."""
