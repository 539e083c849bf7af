"""Errors of the metrics: an input that is wrong, and a number that the data cannot give."""

from __future__ import annotations

from forgery_det.core.errors import ForgeryDetError


class MetricError(ForgeryDetError):
    """An input of a metric is wrong: shape, label, NaN, range."""


class NotEstimableError(MetricError):
    """The input is valid, but the data cannot give this number (no image of a class, nothing at all).

    Functions that return an `Estimate` catch it and put its text in `Estimate.note`.
    """
