"""Checks that every metric makes on its arrays before it computes anything.

Labels are 0 (real) or 1 (generated). Logits must not be NaN; infinities are allowed for ranking and thresholded
metrics, because only the order of the logits matters there. Scores are probabilities in [0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def check_label(label: ArrayLike) -> IntArray:
    """Return the labels as int64 [N].

    Raises:
        MetricError: not one-dimensional, or a value that is neither 0 nor 1 (missing values included).
    """
    label_N = np.asarray(label)
    if label_N.ndim != 1:
        raise MetricError(f"Expected `label` with 1 dimension, got shape {label_N.shape}.")
    if label_N.size == 0:
        return np.zeros(0, dtype=np.int64)
    wrong_N = ~((label_N == 0) | (label_N == 1))
    if wrong_N.any():
        first = int(np.argmax(wrong_N))
        raise MetricError(
            f"Expected `label` in {{0, 1}}, got {label_N[first]!s} at index {first} ({int(wrong_N.sum())} such values)."
        )
    return label_N.astype(np.int64)


def check_values(values: ArrayLike, name: str, *, finite: bool = False) -> FloatArray:
    """Return `values` as float64 [N], free of NaN and, if `finite`, of infinities.

    Raises:
        MetricError: not one-dimensional, not numeric, NaN, or infinite where `finite` is asked for.
    """
    try:
        value_N = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MetricError(f"Expected `{name}` to be numbers, got something else ({error}).") from error
    if value_N.ndim != 1:
        raise MetricError(f"Expected `{name}` with 1 dimension, got shape {value_N.shape}.")
    nan_N = np.isnan(value_N)
    if nan_N.any():
        raise MetricError(
            f"Expected `{name}` without NaN, got {int(nan_N.sum())} NaN of {value_N.size} values, "
            f"the first at index {int(np.argmax(nan_N))}."
        )
    infinite_N = np.isinf(value_N)
    if finite and infinite_N.any():
        raise MetricError(
            f"Expected finite `{name}`, got {int(infinite_N.sum())} infinite of {value_N.size} values, "
            f"the first at index {int(np.argmax(infinite_N))}."
        )
    return value_N


def check_label_logit(label: ArrayLike, logit: ArrayLike, *, finite: bool = False) -> tuple[IntArray, FloatArray]:
    """Check labels and logits together; both [N].

    Raises:
        MetricError: one of them is wrong by itself, or their lengths differ.
    """
    label_N, logit_N = check_label(label), check_values(logit, "logit", finite=finite)
    check_same_length(label=label_N, logit=logit_N)
    return label_N, logit_N


def check_label_score(label: ArrayLike, score: ArrayLike) -> tuple[IntArray, FloatArray]:
    """Check labels and probabilities together; both [N].

    Raises:
        MetricError: as `check_label_logit`, or a score outside [0, 1] (a logit was passed?).
    """
    label_N, score_N = check_label(label), check_values(score, "score")
    check_same_length(label=label_N, score=score_N)
    outside_N = (score_N < 0) | (score_N > 1)
    if outside_N.any():
        first = int(np.argmax(outside_N))
        raise MetricError(
            f"Expected `score` in [0, 1], got {score_N[first]:g} at index {first} "
            f"({int(outside_N.sum())} such values). Logits become scores with a "
            "calibration (forgery_det.metrics.calibration)."
        )
    return label_N, score_N


def check_same_length(**arrays: NDArray[np.generic]) -> None:
    """Raise MetricError unless all arrays have one length."""
    if len({len(array) for array in arrays.values()}) > 1:
        got = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
        raise MetricError(f"Expected arrays of equal length, got {got}.")


def check_open_fraction(value: float, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1, else raise ConfigError."""
    if not 0.0 < value < 1.0:
        raise ConfigError(f"Expected `{name}` in (0, 1), got {value}.")
    return float(value)


def check_fraction(value: float, name: str) -> float:
    """Return `value` if it lies in [0, 1], else raise ConfigError."""
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"Expected `{name}` in [0, 1], got {value}.")
    return float(value)


def not_estimable(n_negative: int, n_positive: int) -> NotEstimableError:
    """Build the error for data that lack a class, with the one wording that all tables show."""
    n = n_negative + n_positive
    if n == 0:
        reason = "no images"
    elif n_negative == 0:
        reason = "only generated images"
    else:
        reason = "only real images"
    return NotEstimableError(f"not estimable (n = {n}: {reason})")
