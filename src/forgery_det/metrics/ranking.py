"""Ranking metrics: how well the logit orders generated images above real ones, whatever the threshold.

With `X` a generated and `Y` a real image drawn at random,

    AUROC = P(logit_X > logit_Y) + 1/2 P(logit_X = logit_Y)      (Mann and Whitney 1947; Hanley and McNeil 1982)
    AP    = sum_g (TPR_g - TPR_{g-1}) * precision_g              thresholds from high to low, no interpolation

Average precision moves with the share of generated images; AUROC does not. Tied logits enter or leave together in
both, so constant logits give AUROC 0.5 and AP equal to the share of generated images. One class alone:
NotEstimableError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.metrics.counts import ClassCounts, at_or_above, score_counts
from forgery_det.metrics.inputs import FloatArray


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Corners of a ROC curve, from the strictest threshold to the laxest.

    Attributes:
        fpr: Share of real images called generated, ascending from 0 to 1.
        tpr: Share of generated images called generated, ascending from 0 to 1.
        threshold: Decision `logit >= threshold` at each point; the first is +inf (nothing is called generated).
    """

    fpr: FloatArray
    tpr: FloatArray
    threshold: FloatArray


def auroc(label: ArrayLike, logit: ArrayLike) -> float:
    """Area under the ROC curve in [0, 1]; ties count one half.

    Raises:
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> auroc([0, 0, 1, 1], [0.0, 1.0, 1.0, 2.0])
        0.875
    """
    return float(auroc_of(score_counts(label, logit))[0])


def auroc_of(counts: ClassCounts) -> FloatArray:
    """AUROC of each replicate, [R]."""
    counts.require("both")
    not_above_RG = np.cumsum(counts.negative, axis=1)
    # Ties were counted whole; half of them goes. Whole numbers, so the sums are exact up to 2**53.
    twice_wins_R = 2.0 * np.vecdot(counts.positive, not_above_RG) - np.vecdot(counts.positive, counts.negative)
    return np.asarray(twice_wins_R / (2.0 * counts.n_negative() * counts.n_positive()))


def average_precision(label: ArrayLike, logit: ArrayLike) -> float:
    """Area under the precision-recall steps in (0, 1]; tied logits form one step.

    Raises:
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> round(average_precision([0, 1, 0, 1], [0.0, 1.0, 2.0, 3.0]), 4)
        0.8333
    """
    return float(average_precision_of(score_counts(label, logit))[0])


def average_precision_of(counts: ClassCounts) -> FloatArray:
    """Average precision of each replicate, [R]."""
    counts.require("both")
    hit_RG = at_or_above(counts.positive)
    called_RG = hit_RG + at_or_above(counts.negative)
    # A replicate may leave the highest values empty: nothing is called generated there, and the step is zero wide.
    precision_RG = np.divide(hit_RG, called_RG, out=np.zeros_like(hit_RG), where=called_RG > 0)
    return np.asarray(np.einsum("rg,rg->r", counts.positive, precision_RG) / counts.n_positive())


def roc_points(counts: ClassCounts) -> tuple[FloatArray, FloatArray]:
    """FPR and TPR from (0, 0) through every distinct value, highest first; both [R, G + 1].

    Raises:
        NotEstimableError: one of the classes is missing.
    """
    counts.require("both")
    rates = []
    for count_RG in (counts.negative, counts.positive):
        called_RG = np.cumsum(count_RG[:, ::-1], axis=1)
        rates.append(np.pad(called_RG / called_RG[:, -1:], ((0, 0), (1, 0))))
    return rates[0], rates[1]


def roc_curve(label: ArrayLike, logit: ArrayLike) -> RocCurve:
    """Return the ROC curve without the points that lie between two equal steps; the drawn curve is the same.

    Raises:
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> curve = roc_curve([0, 0, 1, 1], [0.0, 1.0, 1.0, 2.0])
        >>> curve.fpr.tolist(), curve.tpr.tolist(), curve.threshold.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], [inf, 2.0, 1.0, 0.0])
    """
    counts = score_counts(label, logit)
    counts.require("both")
    turns = (np.diff(counts.negative[0, ::-1]) != 0) | (np.diff(counts.positive[0, ::-1]) != 0)
    keep = np.concatenate([[True], turns, [True]])
    fpr_RG, tpr_RG = roc_points(counts)
    threshold = np.concatenate([[np.inf], counts.value[::-1]])
    return RocCurve(fpr_RG[0][keep], tpr_RG[0][keep], threshold[keep])
