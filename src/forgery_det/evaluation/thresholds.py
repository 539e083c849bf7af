"""Decision thresholds and where they come from: the checkpoint, else `val`, else nowhere. Never the evaluated split.

A threshold fitted on the images it is judged on flatters the detector, and most when there are few images. So the order
is: the operating points that training stored in the checkpoint (fitted on its own `val`), else the `val` split of the
dataset at hand, else there is none and every thresholded metric is "not estimable" with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.core.types import REAL
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.thresholded import OPERATING_POINT_RULES

OPERATING_POINTS = tuple(OPERATING_POINT_RULES)
"""Names of the operating points, as in checkpoints."""

_LEAST_REAL = {"fpr_1pct": 100, "fpr_5pct": 20}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Logit thresholds by operating point; `logit >= threshold` means generated.

    Args:
        value: Operating point -> logit; a point that could not be fitted is absent.
        source: Where they come from, in words.
        reason: Operating point -> why it is absent, or (for a point that is there) what to know about it.
        n_real: Real images they were fitted on, None when unknown.
    """

    value: Mapping[str, float]
    source: str
    reason: Mapping[str, str] = field(default_factory=dict)
    n_real: int | None = None


def from_checkpoint(operating_points: Mapping[str, float], n_real: int | None = None) -> Thresholds:
    """Take the operating points that training stored.

    Args:
        operating_points: Name -> logit.
        n_real: Real images in the `val` they were fitted on, None when the checkpoint does not say.
    """
    reason = {name: "not in the checkpoint" for name in OPERATING_POINTS if name not in operating_points}
    reason |= {name: text for name in operating_points if (text := _doubt(name, n_real))}
    known = "" if n_real is None else f", {n_real} real images"
    return Thresholds(dict(operating_points), f"the checkpoint (val split of its training data{known})", reason, n_real)


def fit_on_val(label: ArrayLike, logit: ArrayLike, dataset: str) -> Thresholds:
    """Fit every operating point on scored `val` images.

    Args:
        label: 0 or 1, [N].
        logit: Higher = generated, [N].
        dataset: Name of the dataset, for the record.
    """
    label_N = np.asarray(label)
    n_real = int((label_N == REAL).sum())
    value, reason = {}, {}
    for name, rule in OPERATING_POINT_RULES.items():
        try:
            value[name] = rule(label_N, logit)
        except NotEstimableError as error:
            reason[name] = str(error)
        else:
            if text := _doubt(name, n_real):
                reason[name] = text
    return Thresholds(value, f"val split of {dataset} ({len(label_N)} images, {n_real} real)", reason, n_real)


def _doubt(name: str, n_real: int | None) -> str:
    """Return why a fitted threshold may not keep its promise, empty when there are enough real images."""
    if n_real is None or n_real >= _LEAST_REAL.get(name, 0):
        return ""
    return (
        f"val has only {n_real} real images: one false alarm is already {1 / n_real:.1%}, "
        "so the true FPR at this threshold is hardly known"
    )


def no_thresholds(why: str) -> Thresholds:
    """Return thresholds that hold none, with the reason for every operating point."""
    return Thresholds({}, "nowhere", dict.fromkeys(OPERATING_POINTS, why))
