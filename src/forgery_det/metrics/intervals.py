"""Intervals for a share of independent images: `k` successes in `n` trials.

    Wilson (1927)            the rates p with |k/n - p| <= z sqrt(p (1 - p) / n); close to nominal on average
    Clopper and Pearson (1934)   the rates p that an exact binomial test does not refuse; never below nominal

With `B(q; a, b)` the quantile of the beta distribution, Clopper-Pearson is `[B(alpha/2; k, n-k+1), B(1-alpha/2; k+1,
n-k)]`. Both are for independent trials. Images of one photograph are not: count clusters, or use the cluster bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import check_open_fraction


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends of a confidence interval, `low <= high`."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a rate, without continuity correction.

    Raises:
        ConfigError: `confidence` outside (0, 1).
        MetricError: `successes` outside [0, n].
        NotEstimableError: n = 0.

    Example:
        >>> interval = wilson(81, 263)
        >>> round(interval.low, 4), round(interval.high, 4)
        (0.2553, 0.3662)
    """
    _check_trials(successes, n, confidence)
    z = float(special.ndtri(0.5 + confidence / 2.0))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At 0 and n the ends are exact by algebra; rounding would leave 1e-17 there.
    low = 0.0 if successes == 0 else float(centre - half)
    return Interval(low, 1.0 if successes == n else float(centre + half))


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact (conservative) interval of a rate.

    Raises:
        ConfigError: `confidence` outside (0, 1).
        MetricError: `successes` outside [0, n].
        NotEstimableError: n = 0.

    Example:
        >>> interval = clopper_pearson(10, 10)
        >>> round(interval.low, 4), interval.high
        (0.6915, 1.0)
    """
    _check_trials(successes, n, confidence)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, tail))
    return Interval(low, upper_bound(successes, n, 1.0 - tail))


def upper_bound(successes: int, n: int, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound: with this confidence the rate is not higher.

    Raises:
        ConfigError: `confidence` outside (0, 1).
        MetricError: `successes` outside [0, n].
        NotEstimableError: n = 0.

    Example:
        >>> round(upper_bound(0, 100), 4)  # the "rule of three": about 3 / n
        0.0295
    """
    _check_trials(successes, n, confidence)
    return 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, confidence))


def rate_estimate(
    successes: int, n: int, *, confidence: float = 0.95, method: Literal["wilson", "clopper_pearson"] = "wilson"
) -> Estimate:
    """Return a rate with its interval; n = 0 gives an estimate without a value.

    Raises:
        ConfigError: unknown method, `confidence` outside (0, 1).
        MetricError: `successes` outside [0, n].

    Example:
        >>> rate_estimate(0, 0).note
        'not estimable (n = 0: no images)'
    """
    functions = {"wilson": wilson, "clopper_pearson": clopper_pearson}
    if method not in functions:
        raise ConfigError(f"Expected `method` in {{wilson, clopper_pearson}}, got {method!r}.")
    try:
        interval = functions[method](successes, n, confidence)
    except NotEstimableError as error:
        return Estimate.missing(n, str(error))
    return Estimate(successes / n, interval.low, interval.high, n)


def _check_trials(successes: int, n: int, confidence: float) -> None:
    check_open_fraction(confidence, "confidence")
    if not 0 <= successes <= n:
        raise MetricError(f"Expected `successes` in [0, n = {n}], got {successes}.")
    if n == 0:
        raise NotEstimableError("not estimable (n = 0: no images)")
