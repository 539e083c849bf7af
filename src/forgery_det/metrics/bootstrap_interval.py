"""From replicates to an interval: percentile and BCa, for one metric or for a difference of two.

    percentile   [q(alpha/2), q(1 - alpha/2)]                                with q the quantiles of the replicates
    BCa          the same at levels Phi(z0 + (z0 + z) / (1 - a (z0 + z)))    Efron (1987)

`z0 = Phi^-1(share of replicates below the value, ties half)`. With several strata `h` of `n_h` clusters the
acceleration is

    a    = sum_h sum_j l_hj^3 / n_h^3 / (6 (sum_h sum_j l_hj^2 / n_h^2)^(3/2))
    l_hj = (n_h - 1) (mean_j value_(-hj) - value_(-hj))

(Davison and Hinkley 1997, section 5.3). Where a stratum has more than 1000 kinds of clusters, 200 random groups are
left out in place of single clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import FloatArray, check_open_fraction
from forgery_det.metrics.resampling import ClusterDesign

Method = Literal["percentile", "bca"]
Replicate = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """How many replicates, which interval, and from which seed.

    Raises:
        ConfigError: fewer than 2 replicates, `confidence` outside (0, 1), a negative seed, or an unknown method.
    """

    n_replicates: int
    confidence: float
    seed: int
    method: Method

    def __post_init__(self) -> None:
        if self.n_replicates < 2:
            raise ConfigError(f"Expected `n_replicates` of at least 2, got {self.n_replicates}.")
        check_open_fraction(self.confidence, "confidence")
        if self.seed < 0:
            raise ConfigError(f"Expected `seed` of at least 0, got {self.seed}.")
        if self.method not in ("percentile", "bca"):
            raise ConfigError(f"Expected `method` in {{percentile, bca}}, got {self.method!r}.")


@dataclass(frozen=True, slots=True)
class ReplicateInterval:
    """The interval that the replicates give.

    Attributes:
        low: Lower end; NaN if no replicate could be computed.
        high: Upper end.
        collapsed: Every replicate has the same value, so the interval has no width.
        p_value: Two-sided, of a true value of 0; of use for differences.
        note: Empty, or what a reader must know.
    """

    low: float
    high: float
    collapsed: bool
    p_value: float
    note: str


def replicate_interval(
    design: ClusterDesign, replicate: Replicate, value: float, options: BootstrapOptions, widest: int
) -> ReplicateInterval:
    """Draw the replicates and read the interval off them.

    Args:
        design: The clusters.
        replicate: Values [R] for draws [R, S]; NaN where a replicate cannot be computed.
        value: The metric on the data.
        options: See `BootstrapOptions`.
        widest: Elements that one replicate needs, to bound the memory.
    """
    draws = design.draw(options.n_replicates, options.seed, widest)
    value_B = np.concatenate([replicate(count_RS) for count_RS in draws])
    lost = int(np.isnan(value_B).sum())
    note = f"{lost} of {options.n_replicates} replicates not estimable" if lost else ""
    value_B = value_B[~np.isnan(value_B)]
    # Equal metrics may differ by a rounding error; such replicates count for both sides.
    fewer = min(int((value_B <= 1e-12).sum()), int((value_B >= -1e-12).sum()))
    p_value = min(1.0, 2.0 * (fewer + 1) / (value_B.size + 1))
    if value_B.size == 0 or np.ptp(value_B) <= 1e-12 * max(1.0, abs(value)):
        ends = value_B[0] if value_B.size else np.nan
        return ReplicateInterval(float(ends), float(ends), True, p_value, note)
    level = np.array([1.0 - options.confidence, 1.0 + options.confidence]) / 2.0
    if options.method == "bca":
        adjusted = _bca_level(value, value_B, level, _acceleration(design, replicate, options.seed, widest))
        if adjusted is None:
            note = "; ".join(filter(None, [note, "BCa not estimable, percentile interval given"]))
        else:
            level = adjusted
    low, high = np.quantile(value_B, level)
    return ReplicateInterval(float(low), float(high), False, p_value, note)


def _bca_level(value: float, value_B: FloatArray, level: FloatArray, acceleration: float | None) -> FloatArray | None:
    """Return the two adjusted levels, or None where bias or acceleration cannot be computed."""
    below = np.mean(value_B < value) + 0.5 * np.mean(value_B == value)
    if not 0.0 < below < 1.0 or acceleration is None:
        return None
    bias, z = special.ndtri(below), special.ndtri(level)
    return np.asarray(special.ndtr(bias + (bias + z) / (1.0 - acceleration * (bias + z))))


def _acceleration(design: ClusterDesign, replicate: Replicate, seed: int, widest: int) -> float | None:
    """Return the acceleration from the jackknife, or None if leaving a cluster out leaves nothing to compute."""
    third, second = 0.0, 0.0
    for left_out in design.leave_out(seed):
        try:
            value_U = np.concatenate([replicate(count_RS) for count_RS in design.without(left_out, widest)])
        except NotEstimableError:
            return None
        n_units = int(left_out.repeat.sum())
        influence_U = (n_units - 1) * (np.average(value_U, weights=left_out.repeat) - value_U)
        third += float(left_out.repeat @ influence_U**3) / n_units**3
        second += float(left_out.repeat @ influence_U**2) / n_units**2
    if not np.isfinite(third) or not second > 0.0:
        return None
    return float(third / (6.0 * second**1.5))
