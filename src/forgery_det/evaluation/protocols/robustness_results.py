"""The numbers of the `robustness` protocol: each condition against clean, and each perturbation over its severities.

Differences to clean are on the same images: interval by paired bootstrap over `source_id`s, p-value by paired DeLong (a
bootstrap's smallest p-value is too coarse when there are many conditions), adjusted by Holm over all conditions. TPR
and FPR at the first operating point are set against clean by `rate_change`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.cells import DIFFERENCE_P_HOLM, difference_records, p_record
from forgery_det.evaluation.protocols.copies import Copies, on_common_images, shortage
from forgery_det.evaluation.protocols.rate_change import RateChange, adjusted, rate_change
from forgery_det.evaluation.slice_metrics import Statistics, Values, metric_estimate, metric_record
from forgery_det.metrics.comparison import Comparison, holm
from forgery_det.metrics.delong import paired_delong
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.paired_bootstrap import paired_bootstrap
from forgery_det.metrics.weighted_auroc import weighted_auroc

AREA, AREA_DIFFERENCE, WORST = "auroc_area", "auroc_area_difference", "auroc_worst"
CLEAN_SLICE = "perturbation=none,severity=0"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one condition gave.

    Args:
        copies: The images.
        auroc: Of the copies.
        difference: AUROC of the copies less that of the same images as stored.
        p_value: Of no difference.
        rates: TPR and FPR at each operating point.
        changes: Of TPR and FPR at the first operating point.
        p_holm: The p-value after Holm's correction over all conditions.
    """

    copies: Copies
    auroc: MetricRecord
    difference: MetricRecord
    p_value: MetricRecord
    rates: tuple[tuple[MetricRecord, MetricRecord], ...]
    changes: tuple[RateChange, RateChange]
    p_holm: MetricRecord

    def records(self) -> tuple[MetricRecord, ...]:
        """Return the rows of `results.parquet`."""
        rates = (record for pair in self.rates for record in pair)
        changes = (record for change in self.changes for record in change.records())
        return (self.auroc, self.difference, self.p_value, self.p_holm, *rates, *changes)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What one perturbation gave over its severities.

    Args:
        name: Of the perturbation.
        family: Its family.
        results: One for each severity, ascending.
        area: Area under the robustness curve.
        area_difference: The area less the clean AUROC of the same images.
        lowest: The severity with the lowest AUROC; None where none is estimable.
    """

    name: str
    family: str
    results: tuple[Result, ...]
    area: MetricRecord
    area_difference: MetricRecord
    lowest: Result | None

    @property
    def worst(self) -> MetricRecord:
        """The lowest AUROC, and where it is."""
        key = f"perturbation={self.name}"
        if self.lowest is None:
            auroc = self.results[0].auroc
            return MetricRecord(WORST, key, None, None, None, auroc.n, True, auroc.note)
        note = f"at {self.lowest.copies.name}; picked as the lowest of {len(self.results)}"
        return replace(self.lowest.auroc, metric=WORST, slice=key, note=note)

    def records(self) -> tuple[MetricRecord, ...]:
        """Return the rows of `results.parquet`."""
        return self.area, self.area_difference, self.worst


@dataclass(frozen=True, slots=True, eq=False)
class RobustnessResults:
    """All numbers of the protocol.

    Args:
        clean: AUROC and rates of the images as stored, AUROC first.
        results: One for each condition.
        summaries: One for each perturbation.
        lowest: The condition with the lowest AUROC of all; None where none is estimable.
    """

    clean: tuple[MetricRecord, ...]
    results: tuple[Result, ...]
    summaries: tuple[Summary, ...]
    lowest: Result | None

    @property
    def worst(self) -> MetricRecord | None:
        """The lowest AUROC of all, and where it is."""
        if self.lowest is None:
            return None
        note = f"at {self.lowest.copies.name}; picked as the lowest of {len(self.results)} conditions"
        return replace(self.lowest.auroc, metric=WORST, slice="overall", note=note)

    def records(self) -> tuple[MetricRecord, ...]:
        """Return the rows of `results.parquet`."""
        return (
            *self.clean,
            *(record for result in self.results for record in result.records()),
            *(record for summary in self.summaries for record in summary.records()),
            *((self.worst,) if self.worst else ()),
        )


def robustness_results(
    groups: Mapping[str, tuple[Copies, ...]], context: ProtocolContext, points: Sequence[str]
) -> RobustnessResults:
    """Judge every condition.

    Args:
        groups: Perturbation -> its conditions, by ascending severity.
        context: Thresholds and statistics, and the clean images.
        points: Operating points at which TPR and FPR are given.
    """
    results = _adjusted([_judge(part, context, points) for parts in groups.values() for part in parts])
    summaries = [_summary(name, parts, results, context.statistics) for name, parts in groups.items()]
    return RobustnessResults(_clean_records(context, points), tuple(results), tuple(summaries), _lowest(results))


def area_weights(severities: Sequence[int]) -> list[float]:
    """Return the weight of each severity in the area under the robustness curve; they sum to 1.

    Args:
        severities: Ascending.

    Example:
        >>> area_weights([1, 2, 3]), area_weights([1, 2, 4]), area_weights([5])
        ([0.25, 0.5, 0.25], [0.16666666666666666, 0.5, 0.3333333333333333], [1.0])
    """
    if len(severities) == 1:
        return [1.0]
    step = np.diff(np.asarray(severities, dtype=np.float64))
    weight = (np.append(step, 0.0) + np.append(0.0, step)) / 2.0 / step.sum()
    return [float(value) for value in weight]


def _clean_records(context: ProtocolContext, points: Sequence[str]) -> tuple[MetricRecord, ...]:
    names = ("auroc", *(f"{rate}@{point}" for point in points for rate in ("tpr", "fpr")))
    return tuple(_record(name, CLEAN_SLICE, Values.of(context.judged()), context) for name in names)


def _judge(copies: Copies, context: ProtocolContext, points: Sequence[str]) -> Result:
    key = copies.condition.slice
    difference, p_value = difference_records(key, _difference(copies, context.statistics))
    rates = [
        (_record(f"tpr@{point}", key, copies.values, context), _record(f"fpr@{point}", key, copies.values, context))
        for point in points
    ]
    auroc = _record("auroc", key, copies.values, context, copies.note)
    changes = (
        rate_change("tpr", key, copies.values, copies.clean_N, points[0], context),
        rate_change("fpr", key, copies.values, copies.clean_N, points[0], context),
    )
    return Result(copies, auroc, difference, p_value, tuple(rates), changes, replace(p_value, metric=DIFFERENCE_P_HOLM))


def _record(name: str, key: str, values: Values, context: ProtocolContext, note: str = "") -> MetricRecord:
    record = metric_record(name, key, metric_estimate(name, values, context.thresholds, context.statistics))
    return replace(record, note="; ".join(filter(None, [record.note, note])))


def _difference(copies: Copies, statistics: Statistics) -> Comparison:
    """Return AUROC of the copies less that of the same clean images."""
    values = copies.values
    if why := shortage(values, statistics):
        return Comparison.missing(len(values.label_N), why)
    found = paired_bootstrap(
        "auroc", values.label_N, values.logit_N, copies.clean_N, values.cluster_N,
        n_replicates=statistics.n_replicates, seed=statistics.seed,
    )  # fmt: skip
    exact = paired_delong(values.label_N, values.logit_N, copies.clean_N, cluster=values.cluster_N)
    return replace(found, p_value=exact.p_value)


def _adjusted(results: Sequence[Result]) -> list[Result]:
    """Fill in the p-values after Holm's correction over all conditions that have one."""
    known = [result.p_value.value for result in results if result.p_value.value is not None]
    after = iter(holm(known))
    changes = zip(*(adjusted([result.changes[rate] for result in results]) for rate in (0, 1)), strict=True)
    filled = []
    for result, pair in zip(results, changes, strict=True):
        value = None if result.p_value.value is None else float(next(after))
        key, n, note = result.copies.condition.slice, result.p_value.n, result.p_value.note
        note = f"Holm over {len(known)} conditions" if value is not None else note
        filled.append(replace(result, changes=pair, p_holm=p_record(DIFFERENCE_P_HOLM, key, value, n, note)))
    return filled


def _summary(name: str, parts: tuple[Copies, ...], results: Sequence[Result], statistics: Statistics) -> Summary:
    mine = tuple(result for result in results if result.copies.condition.perturbation == name)
    area, difference = _area(parts, statistics)
    severities = "severities " + ", ".join(str(part.condition.severity) for part in parts)
    key = f"perturbation={name}"
    return Summary(
        name,
        parts[0].family,
        mine,
        _plain(AREA, key, area, True, severities),
        _plain(AREA_DIFFERENCE, key, difference, None, severities),
        _lowest(mine),
    )


def _lowest(results: Sequence[Result]) -> Result | None:
    known = [(result.auroc.value, index) for index, result in enumerate(results) if result.auroc.value is not None]
    return results[min(known)[1]] if known else None


def _area(parts: Sequence[Copies], statistics: Statistics) -> tuple[Estimate, Estimate]:
    """Return the area, and the area less the clean AUROC, on the images that all severities have."""
    values, logits, clean_N = on_common_images(parts)
    if why := shortage(values, statistics):
        missing = Estimate.missing(len(values.label_N), why)
        return missing, missing
    weights = area_weights([part.condition.severity for part in parts])
    area = weighted_auroc(values.label_N, logits, weights, cluster=values.cluster_N)
    contrast = weighted_auroc(values.label_N, [*logits, clean_N], [*weights, -1.0], cluster=values.cluster_N)
    return area, contrast


def _plain(metric: str, key: str, found: Estimate, higher_is_better: bool | None, note: str) -> MetricRecord:
    note = found.note if found.value is None else "; ".join(filter(None, [note, found.note]))
    return MetricRecord(metric, key, found.value, found.ci_low, found.ci_high, found.n, higher_is_better, note)
