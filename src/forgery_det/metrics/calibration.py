"""From logits to scores that mean what they say: temperature, Platt and isotonic calibration, fitted on `val`.

    temperature   score = sigmoid(logit / T)          one parameter; keeps the order and the 0.5 point (Guo et al. 2017)
    Platt         score = sigmoid(a logit + b)        also shifts, for a `val` with another share of generated images;
                                                      smoothed targets keep it finite on separable data (Platt 1999)
    isotonic      the non-decreasing steps nearest to the labels, joined by lines (Zadrozny and Elkan 2002); needs about
                  a thousand images, and gives scores of exactly 0 and 1

Scores are probabilities at the share of generated images in `val`; elsewhere the prior is another. All fits need both
classes and finite logits. If the classes are separated on `val`, the likelihood wants T = 0: T then stays at its lower
bound, and `at_bound` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from forgery_det.metrics.counts import score_counts
from forgery_det.metrics.inputs import FloatArray, check_label_logit, check_values, not_estimable

TEMPERATURE_BOUNDS = (0.01, 100.0)


class Calibration(Protocol):
    """What every calibration can do."""

    def apply(self, logit: ArrayLike) -> FloatArray:
        """Return the scores in [0, 1] of logits, both [N]."""


@dataclass(frozen=True, slots=True)
class Temperature:
    """`score = sigmoid(logit / temperature)`.

    Attributes:
        temperature: Above 1 softens, below 1 sharpens.
        at_bound: The fit stopped at an end of `TEMPERATURE_BOUNDS`: 0.01 for separable data, 100 for useless logits.
    """

    temperature: float
    at_bound: bool = False

    def apply(self, logit: ArrayLike) -> FloatArray:
        """Return the scores in [0, 1] of logits, both [N].

        Raises:
            MetricError: NaN, or not one-dimensional.
        """
        return np.asarray(special.expit(check_values(logit, "logit") / self.temperature))


@dataclass(frozen=True, slots=True)
class Platt:
    """`score = sigmoid(slope logit + intercept)`; a slope below 0 means that the detector is upside down on `val`."""

    slope: float
    intercept: float

    def apply(self, logit: ArrayLike) -> FloatArray:
        """Return the scores in [0, 1] of logits, both [N].

        Raises:
            MetricError: NaN, infinite, or not one-dimensional.
        """
        return np.asarray(special.expit(self.slope * check_values(logit, "logit", finite=True) + self.intercept))


@dataclass(frozen=True, slots=True)
class Isotonic:
    """Straight lines between knots; constant beyond the first and the last.

    Attributes:
        logit: Of the knots, ascending.
        score: Of the knots, non-decreasing in [0, 1].
    """

    logit: tuple[float, ...]
    score: tuple[float, ...]

    def apply(self, logit: ArrayLike) -> FloatArray:
        """Return the scores in [0, 1] of logits, both [N].

        Raises:
            MetricError: NaN, or not one-dimensional.
        """
        return np.asarray(np.interp(check_values(logit, "logit"), self.logit, self.score))


def fit_temperature(label: ArrayLike, logit: ArrayLike) -> Temperature:
    """Fit the temperature in [0.01, 100] that minimises the negative log-likelihood (convex in 1 / T).

    Raises:
        MetricError: wrong label, NaN or infinite logit, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> fit_temperature([0, 0, 1, 0, 1, 1], [-4.0, -2.0, -2.0, 2.0, 2.0, 4.0]).temperature > 1
        True
        >>> fit_temperature([0, 1], [-1.0, 1.0])
        Temperature(temperature=0.01, at_bound=True)
    """
    signed_N = _signed_margin(label, logit)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, -signed_N * np.exp(-log_temperature)).mean())

    low, high = np.log(TEMPERATURE_BOUNDS)
    found = float(optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x)
    # The search never tries the ends themselves, and on separable data the loss underflows to a flat 0 before them.
    for end, log_temperature in zip(TEMPERATURE_BOUNDS, (low, high), strict=True):
        if loss(log_temperature) <= loss(found):
            return Temperature(end, at_bound=True)
    return Temperature(float(np.exp(found)))


def fit_platt(label: ArrayLike, logit: ArrayLike) -> Platt:
    """Fit slope and intercept by likelihood with Platt's smoothed targets.

    Targets are `(n1 + 1) / (n1 + 2)` for generated and `1 / (n0 + 2)` for real images, so both parameters are finite on
    separable data. Constant logits give slope 0.

    Raises:
        MetricError: wrong label, NaN or infinite logit, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> platt = fit_platt([0, 0, 1, 0, 1, 1], [-4.0, -2.0, -2.0, 2.0, 2.0, 4.0])
        >>> round(platt.slope, 3), abs(round(platt.intercept, 3))
        (0.209, 0.0)
    """
    label_N, logit_N = _check_fit(label, logit)
    n_generated = int(label_N.sum())
    n_real = len(label_N) - n_generated
    target_N = np.where(label_N == 1, (n_generated + 1) / (n_generated + 2), 1 / (n_real + 2))
    centre, spread = float(logit_N.mean()), float(logit_N.std())
    if spread == 0.0:
        return Platt(0.0, float(special.logit(target_N.mean())))
    design_NP = np.stack([(logit_N - centre) / spread, np.ones(len(logit_N))], axis=1)

    def loss(weight_P: FloatArray) -> float:
        activation_N = design_NP @ weight_P
        return float((np.logaddexp(0.0, activation_N) - target_N * activation_N).mean())

    def gradient(weight_P: FloatArray) -> FloatArray:
        return np.asarray(design_NP.T @ (special.expit(design_NP @ weight_P) - target_N) / len(target_N))

    def hessian(weight_P: FloatArray) -> FloatArray:
        score_N = special.expit(design_NP @ weight_P)
        return np.asarray(design_NP.T @ (design_NP * (score_N * (1.0 - score_N))[:, None]) / len(target_N))

    options = {"gtol": 1e-10}
    found = optimize.minimize(loss, np.zeros(2), method="trust-exact", jac=gradient, hess=hessian, options=options).x
    return Platt(float(found[0] / spread), float(found[1] - found[0] * centre / spread))


def fit_isotonic(label: ArrayLike, logit: ArrayLike) -> Isotonic:
    """Fit the non-decreasing scores nearest to the labels in squared error; tied logits share a score.

    Raises:
        MetricError: wrong label, NaN or infinite logit, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> fit_isotonic([0, 1, 0, 1], [0.0, 1.0, 2.0, 3.0])
        Isotonic(logit=(0.0, 1.0, 2.0, 3.0), score=(0.0, 0.5, 0.5, 1.0))
    """
    counts = score_counts(*_check_fit(label, logit))
    total_G = counts.negative[0] + counts.positive[0]
    score_G = optimize.isotonic_regression(counts.positive[0] / total_G, weights=total_G).x
    # Inside a flat stretch the knots carry nothing.
    inner_G = (np.diff(score_G, prepend=np.nan) == 0) & (np.diff(score_G, append=np.nan) == 0)
    return Isotonic(tuple(counts.value[~inner_G].tolist()), tuple(score_G[~inner_G].tolist()))


def _signed_margin(label: ArrayLike, logit: ArrayLike) -> FloatArray:
    """Return the logits with the sign turned for real images: positive = right, [N]."""
    label_N, logit_N = _check_fit(label, logit)
    return np.asarray(np.where(label_N == 1, logit_N, -logit_N))


def _check_fit(label: ArrayLike, logit: ArrayLike) -> tuple[FloatArray, FloatArray]:
    label_N, logit_N = check_label_logit(label, logit, finite=True)
    n_generated = int(label_N.sum())
    if n_generated in (0, len(label_N)):
        raise not_estimable(len(label_N) - n_generated, n_generated)
    return label_N.astype(np.float64), logit_N
