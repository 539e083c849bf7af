"""Class counts per distinct value: the one form from which every metric here is computed.

Sort the distinct values (logits or scores) `v_1 < ... < v_G`. All that a ranking, thresholded or probability metric
needs is how many real and how many generated images sit at each `v_g`. Ties are therefore exact by construction. A
bootstrap replicate only changes the counts, so the same functions serve one sample (R = 1) and a block of replicates
(R > 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.inputs import FloatArray, IntArray, check_label_logit, not_estimable

Needs = Literal["both", "generated", "real", "any"]


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """How many images of each class sit at each distinct value.

    Attributes:
        value: The distinct values, ascending, [G].
        negative: Real images at each value, [R, G], one row a replicate (float64, whole numbers).
        positive: Generated images at each value, [R, G].
    """

    value: FloatArray
    negative: FloatArray
    positive: FloatArray

    def n_negative(self) -> FloatArray:
        """Real images in each replicate, [R]."""
        return np.asarray(self.negative.sum(axis=1))

    def n_positive(self) -> FloatArray:
        """Generated images in each replicate, [R]."""
        return np.asarray(self.positive.sum(axis=1))

    def require(self, needs: Needs) -> None:
        """Raise NotEstimableError unless every replicate holds the class or classes that are needed."""
        n_negative, n_positive = self.n_negative(), self.n_positive()
        present = {
            "both": (n_negative > 0) & (n_positive > 0),
            "generated": n_positive > 0,
            "real": n_negative > 0,
            "any": n_negative + n_positive > 0,
        }[needs]
        if not present.all():
            first = int(np.argmin(present))
            raise not_estimable(int(n_negative[first]), int(n_positive[first]))


def counts_at(value_G: FloatArray, cell_N: NDArray[np.intp], label_N: IntArray) -> ClassCounts:
    """Count the images of each class in each cell; one replicate."""
    size = len(value_G)
    negative_G = np.bincount(cell_N[label_N == 0], minlength=size)
    positive_G = np.bincount(cell_N[label_N == 1], minlength=size)
    return ClassCounts(value_G, negative_G[None].astype(np.float64), positive_G[None].astype(np.float64))


def distinct_cells(value_N: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return the distinct values [G] and the cell of each item [N]."""
    value_G, cell_N = np.unique(value_N, return_inverse=True)
    return value_G, cell_N


def threshold_cells(value_N: FloatArray, threshold: float) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return two cells: 0 below the threshold, 1 at it or above.

    Raises:
        ConfigError: the threshold is NaN.
    """
    if np.isnan(threshold):
        raise ConfigError("Expected `threshold` to be a number, got NaN.")
    return np.array([-np.inf, threshold]), (value_N >= threshold).astype(np.intp)


def score_counts(label: ArrayLike, logit: ArrayLike, *, threshold: float | None = None) -> ClassCounts:
    """Check labels and logits [N] and count them: by distinct logit, or in two cells if a threshold is given.

    Raises:
        MetricError: see `check_label_logit`.

    Example:
        >>> counts = score_counts([0, 1, 1], [0.5, 0.5, 2.0])
        >>> counts.value.tolist(), counts.negative.tolist(), counts.positive.tolist()
        ([0.5, 2.0], [[1.0, 0.0]], [[1.0, 1.0]])
    """
    label_N, logit_N = check_label_logit(label, logit)
    cells = distinct_cells(logit_N) if threshold is None else threshold_cells(logit_N, threshold)
    return counts_at(*cells, label_N)


def at_or_above(count_RG: FloatArray) -> FloatArray:
    """Sum the counts from each value upwards: how many images a threshold at that value calls generated, [R, G]."""
    return np.asarray(np.cumsum(count_RG[:, ::-1], axis=1)[:, ::-1])
