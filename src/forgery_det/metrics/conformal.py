"""Abstain where a mistake is too likely: class-conditional split conformal prediction.

For a new image with logit `x` and each class, the conformal p-value compares it with the `n` images of that class on
`val`:

    p_generated(x) = (1 + #{logit_i <= x}) / (n_generated + 1)        p_real(x) = (1 + #{logit_i >= x}) / (n_real + 1)

A class is in the answer if its p-value exceeds alpha. If `val` and new images of a class are exchangeable, the true
class is left out with probability at most alpha, for each class by itself and for any detector (Vovk, Gammerman and
Shafer 2005; Sadinle, Lei and Wasserman 2019). Exactly one class in the answer is a decision; both ("could be either")
and none ("like neither") are abstentions. The promise is about answers, not about decisions: of the images that are
decided, a larger share than alpha may be wrong if many abstain. Images of an unseen generator are not exchangeable
with `val`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgery_det.metrics.inputs import FloatArray, check_label_logit, check_open_fraction, check_values, not_estimable

ABSTAIN = -1


@dataclass(frozen=True, slots=True)
class Abstention:
    """The two bounds that p-values above alpha come down to.

    Attributes:
        generated_from: "Generated" is in the answer for `logit >= generated_from`; -inf if `val` is too small to rule
            it out.
        real_up_to: "Real" is in the answer for `logit <= real_up_to`; +inf if `val` is too small to rule it out.
        alpha: Chance, for each class, that the answer leaves out the truth.
        n_real: Real images on `val`.
        n_generated: Generated images on `val`.
    """

    generated_from: float
    real_up_to: float
    alpha: float
    n_real: int
    n_generated: int

    def apply(self, logit: ArrayLike) -> NDArray[np.int8]:
        """Return 1 (generated), 0 (real) or -1 (abstain) for each logit, [N].

        Raises:
            MetricError: NaN, or not one-dimensional.

        Example:
            >>> Abstention(-1.0, 1.0, 0.05, 100, 100).apply([-2.0, 0.0, 2.0]).tolist()
            [0, -1, 1]
        """
        logit_N = check_values(logit, "logit")
        generated_N, real_N = logit_N >= self.generated_from, logit_N <= self.real_up_to
        return np.where(generated_N == real_N, ABSTAIN, generated_N.astype(np.int8)).astype(np.int8)


def fit_abstention(label: ArrayLike, logit: ArrayLike, alpha: float = 0.05) -> Abstention:
    """Fit the bounds on `val`.

    A class can be ruled out only if `val` holds at least `1 / alpha - 1` of its images: 19 for 5 %, 99 for 1 %.

    Args:
        label: 0 or 1, [N].
        logit: Higher = generated, [N].
        alpha: Chance that the answer leaves out the truth, in (0, 1).

    Raises:
        ConfigError: `alpha` outside (0, 1).
        MetricError: wrong label, NaN, unequal lengths.
        NotEstimableError: one of the classes is missing.

    Example:
        >>> found = fit_abstention([0] * 19 + [1] * 19, [*range(19), *range(10, 29)], alpha=0.05)
        >>> found.generated_from, found.real_up_to
        (10.0, 18.0)
    """
    check_open_fraction(alpha, "alpha")
    label_N, logit_N = check_label_logit(label, logit)
    generated_N, real_N = logit_N[label_N == 1], logit_N[label_N == 0]
    if not (generated_N.size and real_N.size):
        raise not_estimable(real_N.size, generated_N.size)
    # Symmetric: "real" is judged by -logit as "generated" is by logit.
    return Abstention(_bound(generated_N, alpha), -_bound(-real_N, alpha), alpha, real_N.size, generated_N.size)


def _bound(logit_N: FloatArray, alpha: float) -> float:
    """Return the smallest logit whose p-value `(1 + #{logit_i <= x}) / (n + 1)` exceeds alpha."""
    rank = int(np.floor(alpha * (len(logit_N) + 1) + 1e-9))
    return float(np.sort(logit_N)[rank - 1]) if rank else -np.inf
