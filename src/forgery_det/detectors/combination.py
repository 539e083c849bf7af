"""How an ensemble weighs its members' logits, fitted on `val`.

    z = b + sum over m of w_m (z_m - mean_m) / spread_m,    w_m >= 0

    w, b = argmin  mean over images of log(1 + exp(-s z)) + l2 / 2 |w|^2,    s = 1 for generated, -1 for real

mean_m and spread_m make logits of all scales comparable: a cosine similarity that lives between -1 and -0.9 beside a
log-odds. Weights are not negative, because a member that is trusted backwards on a few hundred `val` images is being
fitted to their noise. The penalty keeps them finite where the members together separate `val`. The problem is convex,
so the fit needs no seed. `b` and the weights also make log-odds at `val`'s share of generated images out of members
whose own logits are none.

A fitted ensemble can lose to its best member on images unlike `val`: show both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from forgery_det.core.errors import ConfigError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Combination:
    """One linear function of the members' logits.

    Args:
        mean: Of each member's logits.
        spread: Their standard deviation, above 0.
        weight: Of each member, at least 0.
        bias: Added to the sum.

    Raises:
        ConfigError: The lengths differ, or a number is out of range.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        if not len(self.mean) == len(self.spread) == len(self.weight) > 0:
            raise ConfigError(
                "Expected one mean, spread and weight for each member, got "
                f"{len(self.mean)}, {len(self.spread)} and {len(self.weight)}."
            )
        if not np.isfinite([*self.mean, *self.spread, *self.weight, self.bias]).all():
            raise ConfigError(f"Expected finite numbers in a combination, got {self}.")
        if min(self.spread) <= 0 or min(self.weight) < 0:
            raise ConfigError(f"Expected spreads above 0 and weights of at least 0, got {self.spread}, {self.weight}.")

    @classmethod
    def average(cls, n_members: int) -> Combination:
        """Return the plain mean of the logits, for members whose logits are comparable and nothing was fitted."""
        return cls((0.0,) * n_members, (1.0,) * n_members, (1.0 / n_members,) * n_members)

    def apply(self, logit_NM: npt.ArrayLike) -> FloatArray:
        """Return the combined logits, [N], of the members' logits, [N, M].

        Raises:
            ConfigError: The shape is wrong, or a logit is not finite.

        Example:
            >>> Combination.average(2).apply([[1.0, 3.0], [0.0, -4.0]])
            array([ 2., -2.])
        """
        checked_NM = _check_logit(logit_NM, len(self.weight))
        combined_N: FloatArray = (checked_NM - self.mean) / self.spread @ np.array(self.weight) + self.bias
        return combined_N


def fit_combination(label_N: npt.ArrayLike, logit_NM: npt.ArrayLike, l2: float = 0.01) -> Combination:
    """Fit weights and bias by non-negative logistic regression on standardised logits.

    Args:
        label_N: 1 generated, 0 real; of `val`, never of `test`.
        logit_NM: A column for each member.
        l2: Strength of the penalty on the weights, above 0.

    Raises:
        ConfigError: Shapes disagree, a logit is not finite, a class is missing, or `l2` is not above 0.

    Example:
        >>> label = [0, 0, 0, 1, 1, 1]
        >>> useful, upside_down = [-2, -1, 1, -1, 1, 2], [1, 2, 1, -1, -2, -1]
        >>> fit = fit_combination(label, np.stack([useful, upside_down], axis=1))
        >>> fit.weight[0] > 0, fit.weight[1]
        (True, 0.0)
    """
    checked_NM = _check_logit(logit_NM)
    label = np.asarray(label_N)
    if label.shape != checked_NM.shape[:1] or set(np.unique(label).tolist()) != {0, 1}:
        raise ConfigError(
            f"Expected {len(checked_NM)} labels of 0 and 1, both present, got shape {label.shape} with the values "
            f"{np.unique(label).tolist()[:5]}."
        )
    if not l2 > 0:
        raise ConfigError(f"Expected `l2` above 0, got {l2}.")
    mean, spread = checked_NM.mean(axis=0), checked_NM.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    weight, bias = _fit((checked_NM - mean) / spread, 2.0 * label - 1.0, l2)
    return Combination(tuple(mean.tolist()), tuple(spread.tolist()), tuple(weight.tolist()), bias)


def _fit(scaled_NM: FloatArray, sign_N: FloatArray, l2: float) -> tuple[FloatArray, float]:
    n, n_members = scaled_NM.shape

    def loss_and_gradient(parameters: FloatArray) -> tuple[float, FloatArray]:
        weight, bias = parameters[:-1], parameters[-1]
        margin_N = sign_N * (scaled_NM @ weight + bias)
        slope_N = -sign_N * special.expit(-margin_N) / n
        gradient = np.append(slope_N @ scaled_NM + l2 * weight, slope_N.sum())
        return float(np.logaddexp(0, -margin_N).mean() + l2 / 2 * weight @ weight), gradient

    start = np.append(np.full(n_members, 1.0 / n_members), 0.0)
    bounds = [(0.0, None)] * n_members + [(None, None)]
    found = optimize.minimize(
        loss_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 5000, "gtol": 1e-9, "ftol": 1e-15},
    )
    return found.x[:-1], float(found.x[-1])


def _check_logit(logit_NM: npt.ArrayLike, n_members: int | None = None) -> FloatArray:
    checked_NM = np.asarray(logit_NM, dtype=np.float64)
    wanted = "any" if n_members is None else n_members
    if checked_NM.ndim != 2 or 0 in checked_NM.shape or n_members not in (None, checked_NM.shape[1]):
        raise ConfigError(f"Expected logits of shape (images, members: {wanted}), got {checked_NM.shape}.")
    if not np.isfinite(checked_NM).all():
        raise ConfigError("Expected finite logits of every member, got NaN or infinity.")
    return checked_NM
