"""Is one detector better than another on the same images? Paired tests, and the price of making many of them.

Both detectors saw the same images, so what one finds easy the other often does too. Paired tests use that; two separate
intervals that overlap prove nothing.

    paired bootstrap   draw the clusters once for both detectors; interval and p-value of any metric's difference
    McNemar            of the images that exactly one detector calls right, is the split fair? (McNemar 1947; mid-p:
                       Fagerland, Lydersen and Laake 2013). Given clusters: each cluster's surplus d_k keeps its size
                       and has either sign with probability 1/2, and the sum of the d_k is judged against that
    Holm               adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)); keeps the chance of any false
                       claim among m comparisons at alpha (Holm 1979)

The paired test of two AUROCs in closed form is `delong.paired_delong`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.inputs import FloatArray, check_same_length
from forgery_det.metrics.resampling import cluster_codes


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two detectors on the same images.

    Attributes:
        difference: First detector less the second; None if it cannot be estimated.
        ci_low: Lower end of its interval; None if there is no honest interval.
        ci_high: Upper end.
        p_value: Two-sided, of no difference; None if it cannot be estimated.
        n: Images that the comparison counts.
        note: Empty, or what a reader must know.
    """

    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    n: int
    note: str = ""

    @classmethod
    def missing(cls, n: int, note: str) -> Comparison:
        """Return a comparison without a value."""
        return cls(None, None, None, None, n, note)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Images on which exactly one of two detectors is right.

    Attributes:
        only_first: Only the first detector is right.
        only_second: Only the second detector is right.
        n: All images compared.
        p_value: Two-sided, of a fair split; 1 if there are no such images.
    """

    only_first: int
    only_second: int
    n: int
    p_value: float


def mcnemar(
    right_first: ArrayLike,
    right_second: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    method: Literal["mid_p", "exact"] = "mid_p",
) -> McNemar:
    """Test whether two detectors are right equally often.

    `exact` never rejects too often, but rejects too seldom; `mid_p` halves the weight of the observed split and is
    close to nominal. Images of one cluster are not independent: with `cluster`, clusters are flipped, not images. One
    image a cluster gives McNemar's test.

    Args:
        right_first: Whether the first detector calls each image right, [N].
        right_second: The same for the second detector, [N].
        cluster: Group of each image [N]; None if the images are independent.
        method: `mid_p` or `exact`.

    Raises:
        ConfigError: unknown method.
        MetricError: not boolean (or 0 and 1), unequal lengths, missing clusters.
        NotEstimableError: no images.

    Example:
        >>> first = [True] * 8 + [False] * 13
        >>> second = [True] + [False] * 7 + [True] + [False] * 12
        >>> round(mcnemar(first, second).p_value, 3), round(mcnemar(first, second, method="exact").p_value, 3)
        (0.039, 0.07)
    """
    if method not in ("mid_p", "exact"):
        raise ConfigError(f"Expected `method` in {{mid_p, exact}}, got {method!r}.")
    first_N, second_N = _check_right(right_first, "right_first"), _check_right(right_second, "right_second")
    check_same_length(right_first=first_N, right_second=second_N)
    if not first_N.size:
        raise NotEstimableError("not estimable (n = 0: no images)")
    only_first, only_second = int((first_N & ~second_N).sum()), int((~first_N & second_N).sum())
    if cluster is None:
        fewer, n_split = min(only_first, only_second), only_first + only_second
        tail, here = float(stats.binom.cdf(fewer, n_split, 0.5)), float(stats.binom.pmf(fewer, n_split, 0.5))
    else:
        code_N, n_clusters = cluster_codes(cluster)
        check_same_length(right_first=first_N, cluster=code_N)
        surplus_N = first_N.astype(np.float64) - second_N
        surplus_K = np.bincount(code_N, weights=surplus_N, minlength=n_clusters).astype(np.float64)
        tail, here = _sign_flip_tail(surplus_K)
    if method == "mid_p":
        tail -= 0.5 * here
    return McNemar(only_first, only_second, len(first_N), float(np.clip(2.0 * tail, 0.0, 1.0)))


def holm(p_values: ArrayLike) -> FloatArray:
    """Return the adjusted p-values [M] in the given order; compare each with alpha.

    Raises:
        MetricError: not one-dimensional, NaN, or outside [0, 1].

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    p_M = np.asarray(p_values, dtype=np.float64)
    if p_M.ndim != 1:
        raise MetricError(f"Expected `p_values` with 1 dimension, got shape {p_M.shape}.")
    wrong_M = ~((p_M >= 0.0) & (p_M <= 1.0))
    if wrong_M.any():
        first = int(np.argmax(wrong_M))
        raise MetricError(f"Expected `p_values` in [0, 1], got {p_M[first]:g} at index {first}.")
    order = np.argsort(p_M, kind="stable")
    adjusted_M = np.empty_like(p_M)
    adjusted_M[order] = np.minimum(1.0, np.maximum.accumulate(p_M[order] * np.arange(len(p_M), 0, -1)))
    return adjusted_M


def _sign_flip_tail(surplus_K: FloatArray) -> tuple[float, float]:
    """Return P(S <= -t) and P(S = -t) of the sum S of `|surplus|` with random signs, t the observed |sum|.

    The characteristic function of S is the product of `cos(w |d_k|)`; its Fourier transform on 2 L + 1 points, with L
    the largest sum, is the distribution itself, to rounding.
    """
    size, count = np.unique(np.abs(surplus_K[surplus_K != 0.0]), return_counts=True)
    reach = int((size * count).sum())
    angle = 2.0 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    transform = np.ones_like(angle)
    for step, times in zip(size, count, strict=True):
        transform *= np.cos(angle * step) ** times
    mass = np.clip(np.fft.fftshift(np.fft.fft(transform).real) / len(angle), 0.0, 1.0)
    observed = reach - int(abs(surplus_K.sum()))
    return float(mass[: observed + 1].sum()), float(mass[observed])


def _check_right(right: ArrayLike, name: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    right_N = np.asarray(right)
    if right_N.ndim != 1:
        raise MetricError(f"Expected `{name}` with 1 dimension, got shape {right_N.shape}.")
    if not ((right_N == 0) | (right_N == 1)).all():
        raise MetricError(f"Expected `{name}` to be True or False for each image.")
    return right_N.astype(np.bool_)
