"""Each metric on each slice of the judged split, with n and a cluster-bootstrap interval.

    predictions + manifest + thresholds -> MetricRecords

Intervals resample `source_id`s, not images (`metrics.bootstrap`): crops of one photograph are one observation. A
column of the result is called `metric` or `metric@operating_point`; `tpr@fpr_1pct` is the TPR at the threshold that
gave 1 % FPR on `val`, and `fpr@fpr_1pct` is the FPR that this threshold really has on the evaluated split. Average
precision moves with the share of generated images, so `prevalence`, which is the average precision of a detector that
guesses, stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.types import GENERATED, MetricRecord
from forgery_det.evaluation.slices import OVERALL, Slice
from forgery_det.evaluation.thresholds import Thresholds
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.registry import get_metric

RANKING = ("auroc", "average_precision", "prevalence")
DETECTION = ("balanced_accuracy@balanced", "tpr@fpr_1pct", "tpr@fpr_5pct")
FALSE_ALARM = ("fpr@fpr_1pct", "fpr@fpr_5pct")

EXACT_UP_TO = 50_000
"""Images of a slice up to which the replicates of ranking metrics are computed on every distinct logit."""

REPLICATE_BINS = 2000
"""Bins of equal mass for the replicates of larger slices; the value stays exact (`metrics.bootstrap`)."""

GROUP_METRICS: dict[str, tuple[str, ...]] = {
    "overall": (*RANKING, *DETECTION, *FALSE_ALARM),
    "generator": (*RANKING, *DETECTION),
    "paradigm": (*RANKING, *DETECTION),
    "decoder": (*RANKING, *DETECTION),
    "prompt_words": (*RANKING, *DETECTION),
}
"""Slice group -> metrics of its slices. All slices of generated images share the real ones, so FPR is given once."""

METRIC_TITLES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "prevalence": "AP of chance",
    "balanced_accuracy@balanced": "balanced accuracy",
    "tpr@fpr_1pct": "TPR at 1 % FPR",
    "tpr@fpr_5pct": "TPR at 5 % FPR",
    "fpr@fpr_1pct": "FPR reached (1 % wanted)",
    "fpr@fpr_5pct": "FPR reached (5 % wanted)",
    "fpr@balanced": "FPR at the balanced threshold",
}
METRIC_EXPLANATIONS = {
    "auroc": "chance that a generated image gets a higher logit than a real one; 0.5 is guessing",
    "average_precision": "area under precision-recall; compare it with the AP of chance in the same row",
    "prevalence": "share of generated images in the slice, which is the average precision of a guess",
    "balanced_accuracy@balanced": "mean share of each class called right, at the threshold that was best on val",
    "tpr@fpr_1pct": "share of generated images caught at the threshold that gave 1 % false alarms on val",
    "tpr@fpr_5pct": "share of generated images caught at the threshold that gave 5 % false alarms on val",
    "fpr@fpr_1pct": "share of real images called generated here, at the threshold that gave 1 % on val",
    "fpr@fpr_5pct": "share of real images called generated here, at the threshold that gave 5 % on val",
    "fpr@balanced": "share of real images called generated, at the threshold that was best on val",
}


@dataclass(frozen=True, slots=True)
class Statistics:
    """How intervals are made and when a slice is too small.

    Args:
        n_replicates: Bootstrap replicates.
        seed: Seed of the bootstrap.
        min_per_class: Fewest images of each class that a metric needs; below it the value is "not estimable".
    """

    n_replicates: int = 1000
    seed: int = 0
    min_per_class: int = 5


def slice_records(
    table: pl.DataFrame, slices: Sequence[Slice], thresholds: Thresholds, statistics: Statistics
) -> tuple[MetricRecord, ...]:
    """Return every metric of every slice, and the thresholds as facts.

    Args:
        table: Predictions joined with the manifest (`label`, `logit`, `source_id`); one row an image.
        slices: From `make_slices` of the same table.
        thresholds: Fitted elsewhere; see `evaluation.thresholds`.
        statistics: Replicates, seed, smallest slice.
    """
    whole = Values.of(table)
    records = []
    for part in slices:
        values = whole.rows(part.row_N)
        for name in GROUP_METRICS[part.group]:
            records.append(metric_record(name, part.key, metric_estimate(name, values, thresholds, statistics)))
    return (*records, *_threshold_records(thresholds))


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """What metrics need of some scored images.

    Args:
        label_N: 0 or 1.
        logit_N: Higher = generated.
        cluster_N: `source_id` of each image.
    """

    label_N: NDArray[np.int64]
    logit_N: NDArray[np.float64]
    cluster_N: NDArray[np.object_]

    @classmethod
    def of(cls, table: pl.DataFrame) -> Values:
        """Take the columns `label`, `logit` and `source_id` of a table."""
        cluster_N = np.asarray(table["source_id"].to_list(), dtype=object)
        return cls(table["label"].to_numpy(), table["logit"].to_numpy(), cluster_N)

    def rows(self, row_M: NDArray[np.intp] | NDArray[np.bool_]) -> Values:
        """Return the values of some images."""
        return Values(self.label_N[row_M], self.logit_N[row_M], self.cluster_N[row_M])

    def counts(self) -> dict[str, int]:
        """Return how many images are `generated` and `real`."""
        n_generated = int((self.label_N == GENERATED).sum())
        return {"generated": n_generated, "real": len(self.label_N) - n_generated}


def metric_estimate(
    name: str, values: Values, thresholds: Thresholds, statistics: Statistics, confidence: float = 0.95
) -> Estimate:
    """Return one metric of some images with its interval, or why there is none; never raises for what data hold.

    Args:
        name: `metric`, `metric@operating_point`, or `prevalence`.
        values: The images.
        thresholds: Fitted elsewhere.
        statistics: Replicates, seed, fewest images of a class.
        confidence: Of the interval.
    """
    counted = values.counts()
    if name == "prevalence":
        n = len(values.label_N)
        if n == 0:
            return Estimate.missing(0, "not estimable (n = 0: no images)")
        return Estimate(counted["generated"] / n, None, None, n)
    metric_name, _, point = name.partition("@")
    metric = get_metric(metric_name)
    needed = counted if metric.needs == "both" else {metric.needs: counted.get(metric.needs, len(values.label_N))}
    n_needed = sum(needed.values())
    for kind, count in needed.items():
        if count < statistics.min_per_class:
            why = f"not estimable (n = {count} {kind} images, fewer than {statistics.min_per_class})"
            return Estimate.missing(n_needed, why)
    if n_nan := int(np.isnan(values.logit_N).sum()):
        return Estimate.missing(n_needed, f"not estimable (n = {n_needed}: {n_nan} logits are NaN)")
    if metric.needs_threshold and point not in thresholds.value:
        reason = thresholds.reason.get(point, "no such operating point")
        return Estimate.missing(n_needed, f"not estimable (no threshold: {reason})")
    many = len(values.label_N) > EXACT_UP_TO and not metric.needs_threshold and metric.values == "logit"
    return cluster_bootstrap(
        metric,
        values.label_N,
        values.logit_N,
        values.cluster_N,
        threshold=thresholds.value[point] if metric.needs_threshold else None,
        n_replicates=statistics.n_replicates,
        confidence=confidence,
        seed=statistics.seed,
        n_bins=REPLICATE_BINS if many and metric.of_counts is not None else None,
    )


def metric_record(name: str, key: str, estimate: Estimate) -> MetricRecord:
    """Return the row of `results.parquet` of an estimate."""
    direction = None if name == "prevalence" else get_metric(name.partition("@")[0]).higher_is_better
    return MetricRecord(
        name, key, estimate.value, estimate.ci_low, estimate.ci_high, estimate.n, direction, estimate.note
    )


def _threshold_records(thresholds: Thresholds) -> Iterable[MetricRecord]:
    for name in sorted(set(thresholds.value) | set(thresholds.reason)):
        note = "; ".join(filter(None, [f"from {thresholds.source}", thresholds.reason.get(name, "")]))
        yield MetricRecord(
            f"threshold@{name}", OVERALL, thresholds.value.get(name), None, None, thresholds.n_real or 0, None, note
        )
