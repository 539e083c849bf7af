"""The metrics by name. To add one: write a function from arrays to a float, and add one line to `METRICS`.

A function of `(label, logit)`, `(label, score)` or `(label, logit, threshold)` is enough. `of_counts`, the same metric
on `ClassCounts`, makes its bootstrap about a hundred times faster; without it the replicates are computed one by one.

Example:
    >>> METRICS["auroc"].function([0, 1], [0.0, 1.0])
    1.0
    >>> [name for name, metric in METRICS.items() if metric.needs_threshold]
    ['balanced_accuracy', 'accuracy', 'tpr', 'fpr']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from forgery_det.core.errors import UnknownNameError
from forgery_det.core.registry import did_you_mean
from forgery_det.metrics import probability, ranking, thresholded
from forgery_det.metrics.counts import ClassCounts, Needs
from forgery_det.metrics.inputs import FloatArray

CountsFunction = Callable[[ClassCounts], FloatArray]
Boundary = Literal["generated", "real", "smaller", "all"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, and what a table or a bootstrap must know about it.

    Attributes:
        name: Registry name, as written to `results.parquet`.
        function: `(label, values) -> float`, or `(label, values, threshold) -> float` if `needs_threshold`.
        needs_threshold: A decision threshold (from `val`) must be given.
        higher_is_better: Direction of a good detector.
        description: One sentence for reports.
        values: What the second argument is: the raw `logit`, or the calibrated `score` in [0, 1].
        needs: Which classes must be present; also which images `Estimate.n` counts.
        of_counts: The same metric on `ClassCounts`, one value a replicate.
        boundary: Whose clusters bound the metric when it is exactly 0 or 1 in every replicate (see `bootstrap`); None
            if no such bound is known.
    """

    name: str
    function: Callable[..., float]
    needs_threshold: bool
    higher_is_better: bool
    description: str
    values: Literal["logit", "score"] = "logit"
    needs: Needs = "both"
    of_counts: CountsFunction | None = None
    boundary: Boundary | None = None


def _ranking(
    name: str, function: Callable[..., float], of_counts: CountsFunction, text: str, boundary: Boundary | None = None
) -> Metric:
    return Metric(name, function, False, name != "eer", text, of_counts=of_counts, boundary=boundary)


def _decision(
    name: str, function: Callable[..., float], of_counts: CountsFunction, needs: Needs, boundary: Boundary, text: str
) -> Metric:
    return Metric(name, function, True, name != "fpr", text, needs=needs, of_counts=of_counts, boundary=boundary)


def _probability(
    name: str, function: Callable[..., float], of_counts: CountsFunction, needs: Needs, text: str
) -> Metric:
    return Metric(name, function, False, False, text, values="score", needs=needs, of_counts=of_counts)


def _pd(name: str, far: float) -> Metric:
    function, of_counts = partial(thresholded.pd_at_far, far=far), partial(thresholded.pd_at_far_of, far=far)
    return _ranking(name, function, of_counts, f"Best TPR of any threshold with FPR <= {far:.0%} on the same images")


_P_AUROC = partial(thresholded.partial_auroc_of, max_fpr=0.1)
_ALL = (
    _ranking("auroc", ranking.auroc, ranking.auroc_of, "Area under the ROC curve", "smaller"),
    _ranking(
        "average_precision", ranking.average_precision, ranking.average_precision_of, "Area under precision-recall"
    ),
    _ranking(
        "partial_auroc", thresholded.partial_auroc, _P_AUROC, "Area under the ROC curve for FPR <= 10%, standardised"
    ),
    _ranking("eer", thresholded.eer, thresholded.eer_of, "Rate at which false alarms equal misses"),
    _pd("pd_at_far_1pct", 0.01),
    _pd("pd_at_far_5pct", 0.05),
    _pd("pd_at_far_10pct", 0.10),
    _decision(
        "balanced_accuracy",
        thresholded.balanced_accuracy,
        thresholded.balanced_accuracy_of,
        "both",
        "smaller",
        "Mean share of each class called right",
    ),
    _decision("accuracy", thresholded.accuracy, thresholded.accuracy_of, "any", "all", "Share of images called right"),
    _decision("tpr", thresholded.tpr, thresholded.tpr_of, "generated", "generated", "Share of generated images found"),
    _decision("fpr", thresholded.fpr, thresholded.fpr_of, "real", "real", "Share of real images called generated"),
    _probability("brier", probability.brier, probability.brier_of, "any", "Mean squared error of the score"),
    _probability(
        "nll", probability.nll, probability.nll_of, "any", "Mean negative log-likelihood of the score, in nats"
    ),
    _probability(
        "ece", probability.ece, probability.ece_of, "any", "Gap of score and frequency, 15 bins of equal mass"
    ),
    _probability("cllr", probability.cllr, probability.cllr_of, "both", "Cost of the log-likelihood ratio, in bits"),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})


def get_metric(name: str) -> Metric:
    """Return the metric called `name`.

    Raises:
        UnknownNameError: no such metric; the text offers the nearest names.

    Example:
        >>> get_metric("tpr").needs_threshold
        True
    """
    if name not in METRICS:
        raise UnknownNameError(f"Unknown metric {name!r}: {did_you_mean(name, METRICS)}")
    return METRICS[name]
