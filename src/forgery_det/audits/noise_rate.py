"""What share of labels is wrong, given logits that never saw them? Logistic calibration with a rate of flipped labels.

    q(y | z) = sigmoid(+-(a z + b))                                what the logit z says of the true label
    P(y | z) = (1 - e) q(y | z) + e (1 - q(y | z))                 what is seen if a share e of labels is flipped

a, b and e are fitted by maximum likelihood (label-noise robust logistic regression: Bootkrajang and Kaban, ECML 2012).
Plain calibration cannot serve here: fitted to wrong labels, it calls the probe less sure until they fit. Whether e is
above 0 at all is a likelihood ratio test on the edge of the range, p = 1/2 P(chi2_1 > LR) (Self and Liang, JASA 1987);
its interval is the profile likelihood's. Given e, an observed label is wrong with probability

    P(wrong | y, z) = e (1 - q) / ((1 - e) q + e (1 - q)).

The model takes the logits of a class to be about normal. Simulated with 80 sets each: normal logits two or four
standard deviations apart without a wrong label give p <= 0.01 in 0 to 1 % of the sets. 5 % of wrong labels are found in
48 % (n = 60) and 85 % (n = 200) of the sets at four standard deviations, and in 11 % (n = 200) at two. Heavy tails
(Student t, 4 degrees of freedom) without a wrong label give p <= 0.01 in 15 to 74 %: images unlike their class cannot
be told from wrong labels by any such test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from forgery_det.metrics.inputs import FloatArray, IntArray

MAX_RATE = 0.45
"""At one half the labels say nothing."""
_SLOPES, _INTERCEPTS = (1e-3, 100.0), (-20.0, 20.0)
_START_RATES = (0.01, 0.1, 0.3)
_CHI2_95 = float(stats.chi2.ppf(0.95, 1))


@dataclass(frozen=True, slots=True)
class NoiseRate:
    """A fitted rate of wrong labels.

    Attributes:
        rate: Share of flipped labels, in [0, `MAX_RATE`].
        low: Lower end of the 95 % profile interval.
        high: Upper end.
        p_value: Of no flipped label.
        slope: Of the calibration.
        intercept: Of the calibration.
    """

    rate: float
    low: float
    high: float
    p_value: float
    slope: float
    intercept: float

    def p_wrong(self, label_N: IntArray, logit_N: FloatArray) -> FloatArray:
        """Return the probability that each label is wrong, [N]."""
        right_N = special.expit(_sign(label_N) * (self.slope * logit_N + self.intercept))
        flipped_N = self.rate * (1.0 - right_N)
        return np.asarray(flipped_N / ((1.0 - self.rate) * right_N + flipped_N + 1e-300))


def fit_noise_rate(label_N: IntArray, logit_N: FloatArray) -> NoiseRate:
    """Fit the rate of wrong labels.

    Args:
        label_N: 0 or 1, both present.
        logit_N: Of a probe that never saw them, higher = generated.

    Example:
        >>> label = np.arange(200) % 2
        >>> logit = np.where(label == 1, 1.0, -1.0) * np.random.default_rng(0).normal(3.0, 1.0, 200)
        >>> label[:10] = 1 - label[:10]
        >>> found = fit_noise_rate(label, logit)
        >>> round(found.rate, 2), found.p_value < 0.01, int((found.p_wrong(label, logit) > 0.5).sum())
        (0.05, True, 10)
    """
    sign_N = _sign(label_N)
    # Logits of any scale: the bounds of the slope count in their spread.
    scale = float(logit_N.std()) or 1.0
    z_N = logit_N / scale

    def best(rate: float) -> tuple[float, float, float]:
        """Return the log likelihood at a rate, and slope and intercept there."""
        found = optimize.minimize(
            lambda free: _negative_log_likelihood(np.array([rate, *free]), sign_N, z_N)[0],
            (1.0, 0.0),
            jac=lambda free: _negative_log_likelihood(np.array([rate, *free]), sign_N, z_N)[1][1:],
            method="L-BFGS-B",
            bounds=(_SLOPES, _INTERCEPTS),
        )
        return -float(found.fun), float(found.x[0]), float(found.x[1])

    clean = best(0.0)
    starts = [(rate, clean[1], clean[2]) for rate in _START_RATES] + [(rate, 5.0, 0.0) for rate in _START_RATES]
    fits = [
        optimize.minimize(
            _negative_log_likelihood, start, (sign_N, z_N), jac=True, method="L-BFGS-B",
            bounds=((0.0, MAX_RATE), _SLOPES, _INTERCEPTS),
        )
        for start in starts
    ]  # fmt: skip
    joint = min(fits, key=lambda fit: float(fit.fun))
    rate = float(joint.x[0]) if -joint.fun > clean[0] + 1e-6 else 0.0
    height, slope, intercept = best(rate) if rate else clean
    ratio = max(0.0, 2.0 * (height - clean[0]))
    p_value = 0.5 * float(stats.chi2.sf(ratio, 1)) if ratio > 0.0 else 1.0

    def above(at: float) -> float:
        return 2.0 * (height - best(at)[0]) - _CHI2_95

    low = float(optimize.brentq(above, 0.0, rate)) if rate and above(0.0) > 0.0 else 0.0
    high = float(optimize.brentq(above, rate, MAX_RATE)) if above(MAX_RATE) > 0.0 else MAX_RATE
    return NoiseRate(rate, low, high, p_value, slope / scale, intercept)


def _sign(label_N: IntArray) -> FloatArray:
    return np.where(np.asarray(label_N) == 1, 1.0, -1.0)


def _negative_log_likelihood(parameters: FloatArray, sign_N: FloatArray, z_N: FloatArray) -> tuple[float, FloatArray]:
    """Return the value and its gradient, both by rate, slope and intercept."""
    rate, slope, intercept = parameters
    right_N = special.expit(sign_N * (slope * z_N + intercept))
    seen_N = rate + (1.0 - 2.0 * rate) * right_N + 1e-12
    by_rate = ((1.0 - 2.0 * right_N) / seen_N).sum()
    pull_N = (1.0 - 2.0 * rate) * right_N * (1.0 - right_N) * sign_N / seen_N
    return -float(np.log(seen_N).sum()), -np.array([by_rate, (pull_N * z_N).sum(), pull_N.sum()])
