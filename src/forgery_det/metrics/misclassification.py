"""The true rate behind a judge that errs: Rogan and Gladen's estimate, with the judge's own error in the interval.

A detector of corrupted drawings with sensitivity `Se` and specificity `Sp` calls the share `q` of images corrupted,
where the share `p` is:

    q = p Se + (1 - p) (1 - Sp)        so        p = (q + Sp - 1) / (Se + Sp - 1)

(Rogan and Gladen 1978, DOI 10.1093/oxfordjournals.aje.a112510), cut to [0, 1]. `Se` and `Sp` come from a validation
with finite numbers, so they err too. The interval is Lang and Reiczigel's (2014,
DOI 10.1016/j.prevetmed.2013.09.015): one success and one failure are added to the validation's counts and `z^2 / 2` of
each to the rate's, the estimate moves by `2 z^2 (p ...)` towards where the error pulls it, and the variance is

    v = ( q (1 - q) / n + (1 - p)^2 Sp (1 - Sp) / n_sp + p^2 Se (1 - Se) / n_se ) / (Se + Sp - 1)^2
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import special

from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import check_fraction, check_open_fraction


@dataclass(frozen=True, slots=True)
class JudgeError:
    """Validation of a yes-or-no judge on cases whose truth is known.

    Args:
        hits: Positive cases that it called positive.
        n_positive: Positive cases, at least 1.
        passes: Negative cases that it called negative.
        n_negative: Negative cases, at least 1.
    """

    hits: int
    n_positive: int
    passes: int
    n_negative: int

    def __post_init__(self) -> None:
        """Check the counts.

        Raises:
            MetricError: A count is out of range.
        """
        for name, count, n in (("hits", self.hits, self.n_positive), ("passes", self.passes, self.n_negative)):
            if n < 1 or not 0 <= count <= n:
                raise MetricError(f"Expected `{name}` in [0, n] and n of at least 1, got {count} of {n}.")

    @property
    def sensitivity(self) -> float:
        """Share of positive cases that are found."""
        return self.hits / self.n_positive

    @property
    def specificity(self) -> float:
        """Share of negative cases that are left alone."""
        return self.passes / self.n_negative


def corrected_rate(rate: float, n_effective: float, error: JudgeError, *, confidence: float = 0.95) -> Estimate:
    """Return the true rate behind a judge's rate, with both errors in the interval.

    Args:
        rate: Share that the judge called positive, in [0, 1].
        n_effective: Independent images behind it (fewer than images, where they come in clusters), above 0.
        error: The judge's validation.
        confidence: Of the interval, in (0, 1).

    Raises:
        ConfigError: `rate` outside [0, 1] or `confidence` outside (0, 1).
        MetricError: `n_effective` is not positive.

    Example:
        >>> found = corrected_rate(0.30, 1000, JudgeError(hits=90, n_positive=100, passes=95, n_negative=100))
        >>> round(found.value, 3), round(found.ci_low, 3), round(found.ci_high, 3)
        (0.294, 0.234, 0.345)
        >>> corrected_rate(0.3, 100, JudgeError(5, 10, 5, 10)).note
        'not estimable (sensitivity 0.50 and specificity 0.50 add up to no more than chance)'
    """
    check_fraction(rate, "rate")
    check_open_fraction(confidence, "confidence")
    if not n_effective > 0:
        raise MetricError(f"Expected `n_effective` above 0, got {n_effective}.")
    n = round(n_effective)
    if error.sensitivity + error.specificity <= 1.0:
        return Estimate.missing(
            n,
            f"not estimable (sensitivity {error.sensitivity:.2f} and specificity {error.specificity:.2f} add up to "
            "no more than chance)",
        )
    value = _cut((rate + error.specificity - 1.0) / (error.sensitivity + error.specificity - 1.0))
    low, high = _interval(rate, n_effective, error, float(special.ndtri(0.5 + confidence / 2.0)))
    return Estimate(value, min(low, value), max(high, value), n)


def _interval(rate: float, n: float, error: JudgeError, z: float) -> tuple[float, float]:
    n_more = n + z * z
    rate_more = (n * rate + z * z / 2.0) / n_more
    se_n, sp_n = error.n_positive + 2, error.n_negative + 2
    se, sp = (error.hits + 1) / se_n, (error.passes + 1) / sp_n
    youden = se + sp - 1.0
    p = (rate_more + sp - 1.0) / youden
    shift = 2.0 * z * z * (p * se * (1.0 - se) / se_n - (1.0 - p) * sp * (1.0 - sp) / sp_n)
    variance = (
        rate_more * (1.0 - rate_more) / n_more
        + (1.0 - p) ** 2 * sp * (1.0 - sp) / sp_n
        + p * p * se * (1.0 - se) / se_n
    ) / youden**2
    half = z * math.sqrt(variance)
    return _cut(p + shift - half), _cut(p + shift + half)


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))
