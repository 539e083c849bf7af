"""Metrics of a score as a probability: is a score of 0.9 right nine times in ten, and how much does it tell?

With score `s` in [0, 1] and label `y`:

    Brier = mean (s - y)^2                                                        (Brier 1950)
    NLL   = - mean [y ln s + (1 - y) ln(1 - s)]                                   in nats
    ECE   = sum_b n_b / n |mean score_b - share generated_b|                      bins of equal mass (Nixon et al. 2019)
    Cllr  = 1/2 mean_generated log2(1 + 1/LR) + 1/2 mean_real log2(1 + LR)        (Brummer and du Preez 2006), in bits

`LR = s / (1 - s) * (1 - prior) / prior` is the likelihood ratio that the score states. Cllr weighs both classes alike:
0 is perfect, 1 is a detector that says nothing, above 1 it misleads. NLL and Cllr clip scores to [eps, 1 - eps] with
the float64 eps (2.2e-16), so one wrong certainty costs about 36 nats and not infinity. Lower is better for all four.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.counts import ClassCounts, counts_at, distinct_cells
from forgery_det.metrics.inputs import FloatArray, check_label_score, check_open_fraction

_EPS = float(np.finfo(np.float64).eps)


def probability_counts(label: ArrayLike, score: ArrayLike) -> ClassCounts:
    """Check labels and scores [N] and count them by distinct score.

    Raises:
        MetricError: see `check_label_score`.
    """
    label_N, score_N = check_label_score(label, score)
    return counts_at(*distinct_cells(score_N), label_N)


def brier(label: ArrayLike, score: ArrayLike) -> float:
    """Mean squared difference of score and label, in [0, 1].

    Raises:
        MetricError: wrong label, score outside [0, 1], NaN, unequal lengths.
        NotEstimableError: no images.

    Example:
        >>> round(brier([0, 1], [0.1, 0.8]), 4)
        0.025
    """
    return float(brier_of(probability_counts(label, score))[0])


def brier_of(counts: ClassCounts) -> FloatArray:
    """Brier score of each replicate, [R]."""
    return _mean_loss(counts, counts.value**2, (1.0 - counts.value) ** 2)


def nll(label: ArrayLike, score: ArrayLike) -> float:
    """Mean negative log-likelihood in nats, >= 0; ln 2 = 0.693 for a constant score of one half.

    Raises:
        MetricError: wrong label, score outside [0, 1], NaN, unequal lengths.
        NotEstimableError: no images.

    Example:
        >>> round(nll([0, 1], [0.1, 0.8]), 4)
        0.1643
    """
    return float(nll_of(probability_counts(label, score))[0])


def nll_of(counts: ClassCounts) -> FloatArray:
    """Negative log-likelihood of each replicate, [R]."""
    score_G = np.clip(counts.value, _EPS, 1.0 - _EPS)
    return _mean_loss(counts, -np.log1p(-score_G), -np.log(score_G))


def cllr(label: ArrayLike, score: ArrayLike, prior: float = 0.5) -> float:
    """Cost of the log-likelihood ratio in bits, >= 0; 1 for a score that always equals the prior.

    Args:
        label: 0 or 1, [N].
        score: Calibrated probability of "generated", [N].
        prior: Share of generated images for which the score was calibrated, in (0, 1).

    Raises:
        ConfigError: `prior` outside (0, 1).
        MetricError: wrong label, score outside [0, 1], NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> round(cllr([0, 1], [0.1, 0.8]), 4), cllr([0, 1, 1], [0.5, 0.5, 0.5])
        (0.237, 1.0)
    """
    return float(cllr_of(probability_counts(label, score), prior)[0])


def cllr_of(counts: ClassCounts, prior: float = 0.5) -> FloatArray:
    """Cllr of each replicate, [R]."""
    check_open_fraction(prior, "prior")
    counts.require("both")
    score_G = np.clip(counts.value, _EPS, 1.0 - _EPS)
    log_ratio_G = np.log(score_G) - np.log1p(-score_G) - np.log(prior / (1.0 - prior))
    generated_R = counts.positive @ np.logaddexp(0.0, -log_ratio_G) / counts.n_positive()
    real_R = counts.negative @ np.logaddexp(0.0, log_ratio_G) / counts.n_negative()
    return np.asarray(0.5 * (generated_R + real_R) / np.log(2.0))


def ece(label: ArrayLike, score: ArrayLike, n_bins: int = 15) -> float:
    """Expected calibration error in [0, 1], with bins that hold (nearly) equally many images.

    Images with one score are never split: they all go to the bin in which the middle of their group falls. A calibrated
    detector does not reach 0 on few images: the error of `n / n_bins` coin flips remains in each bin.

    Args:
        label: 0 or 1, [N].
        score: Calibrated probability of "generated", [N].
        n_bins: At least 1.

    Raises:
        ConfigError: `n_bins` below 1.
        MetricError: wrong label, score outside [0, 1], NaN, unequal lengths.
        NotEstimableError: no images.

    Example:
        >>> round(ece([0, 1, 0, 1], [0.2, 0.2, 0.9, 0.9], n_bins=2), 4)
        0.35
    """
    return float(ece_of(probability_counts(label, score), n_bins)[0])


def ece_of(counts: ClassCounts, n_bins: int = 15) -> FloatArray:
    """Expected calibration error of each replicate, [R]; the bins are cut anew in each."""
    if n_bins < 1:
        raise ConfigError(f"Expected `n_bins` of at least 1, got {n_bins}.")
    counts.require("any")
    total_RG = counts.negative + counts.positive
    n_R = total_RG.sum(axis=1)
    middle_RG = np.cumsum(total_RG, axis=1) - 0.5 * total_RG
    bin_RG = np.minimum((middle_RG * n_bins / n_R[:, None]).astype(np.intp), n_bins - 1)
    gap_RG = total_RG * counts.value - counts.positive
    row_bin_RG = bin_RG + n_bins * np.arange(len(n_R))[:, None]
    gap_RB = np.bincount(row_bin_RG.ravel(), weights=gap_RG.ravel(), minlength=len(n_R) * n_bins)
    return np.asarray(np.abs(gap_RB.reshape(len(n_R), n_bins)).sum(axis=1) / n_R)


def _mean_loss(counts: ClassCounts, real_loss_G: FloatArray, generated_loss_G: FloatArray) -> FloatArray:
    """Mean loss of each replicate, [R], from the loss of each class at each score."""
    counts.require("any")
    total_R = counts.negative @ real_loss_G + counts.positive @ generated_loss_G
    return np.asarray(total_R / (counts.n_negative() + counts.n_positive()))
