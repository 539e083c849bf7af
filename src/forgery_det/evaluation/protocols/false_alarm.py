"""How often are real images called generated, source by source? Only real images are looked at.

    FPR = (real images with logit >= threshold) / (real images)

A detector that learnt a camera or a website has a low FPR overall and a high one on one source, which is what its users
meet. The interval depends on how the images came:

- every image has its own `source_id`: Clopper-Pearson (1934). It is never below its nominal level, while Wilson's may
  be far below for rates near 0, which is where false alarms live and where promises are made;
- several images share a `source_id` (crops of one photograph): the cluster bootstrap of `metrics.bootstrap`, which at
  0 or 1 false alarms of m clusters becomes Clopper-Pearson on the clusters.

Whoever looks at many sources finds a bad one by chance, so a source is warned of only where its interval at the level
`1 - 0.05 / number of sources` (Bonferroni) lies above the rate that was wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import REAL
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.cells import record_cell
from forgery_det.evaluation.slice_metrics import METRIC_TITLES, Values, metric_estimate, metric_record
from forgery_det.evaluation.thresholds import OPERATING_POINTS
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.intervals import clopper_pearson
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import Cell, Section, SectionTable

WANTED = {"fpr_1pct": 0.01, "fpr_5pct": 0.05}
"""Operating points that promise a rate."""

_ALL = "all real images"


def false_alarm(
    context: ProtocolContext, *, operating_points: Sequence[str] = ("fpr_1pct", "fpr_5pct", "balanced")
) -> ProtocolResult:
    """Give the FPR of each source of real images at each operating point.

    Args:
        context: Predictions and thresholds.
        operating_points: Thresholds that are judged, by name.

    Raises:
        ConfigError: Unknown operating point.
    """
    points = _check_points(operating_points, context)
    real = context.judged().filter(pl.col("label") == REAL)
    sources = sorted(real["source"].unique().to_list())
    parts = [("label=real", _ALL, real)]
    parts += [(f"source={name}", name, real.filter(pl.col("source") == name)) for name in sources]
    records, rows, caveats = [], [], []
    for key, name, rows_of_source in parts:
        values = Values.of(rows_of_source)
        found = [metric_record(f"fpr@{p}", key, fpr_estimate(values, p, context)) for p in points]
        records += found
        independent = _independent(values)
        cells = (Cell(str(len(values.label_N))), Cell(str(len(set(values.cluster_N)))))
        method = Cell("exact" if independent else "clusters")
        rows.append((name, (*cells, method, *(record_cell(r, with_note=not independent) for r in found))))
        if name != _ALL:
            caveats += list(_warn(name, values, points, len(sources), context))
    return ProtocolResult(tuple(records), _section(rows, points), tuple(caveats))


def fpr_estimate(values: Values, point: str, context: ProtocolContext, confidence: float = 0.95) -> Estimate:
    """Return the FPR of some real images: exact where they are independent, by resampling clusters where not."""
    estimate = metric_estimate(f"fpr@{point}", values, context.thresholds, context.statistics, confidence)
    if estimate.value is None or not _independent(values):
        return estimate
    n = len(values.label_N)
    interval = clopper_pearson(round(estimate.value * n), n, confidence)
    return Estimate(estimate.value, interval.low, interval.high, n, "Clopper-Pearson: each image is a source_id")


def _independent(values: Values) -> bool:
    return len(set(values.cluster_N)) == len(values.cluster_N)


def _check_points(points: Sequence[str], context: ProtocolContext) -> tuple[str, ...]:
    known = {*OPERATING_POINTS, *context.thresholds.value}
    for point in points:
        if point not in known:
            raise ConfigError(f"Unknown operating point {point!r} (false_alarm): {did_you_mean(str(point), known)}")
    return tuple(points)


def _warn(
    source: str, values: Values, points: Sequence[str], n_sources: int, context: ProtocolContext
) -> Iterator[Caveat]:
    for point in points:
        strict = fpr_estimate(values, point, context, 1.0 - 0.05 / n_sources)
        wanted = WANTED.get(point)
        if wanted is None or strict.value is None or strict.ci_low is None or strict.ci_high is None:
            continue
        if strict.ci_low > wanted:
            level = f"{1.0 - 0.05 / n_sources:.4g}"
            yield Caveat(
                "doubt",
                f"Real images of the source {source} are called generated {strict.value:.1%} of the time at the "
                f"threshold for {wanted:.0%} (n = {strict.n}, interval at the level {level} for {n_sources} sources: "
                f"{strict.ci_low:.1%} to {strict.ci_high:.1%}).",
            )


def _section(rows: list[tuple[str, tuple[Cell, ...]]], points: Sequence[str]) -> Section:
    titles = tuple(METRIC_TITLES.get(f"fpr@{point}", f"FPR at {point}") for point in points)
    table = SectionTable(
        "FPR by source",
        ("source", "n real", "source_ids", "interval", *titles),
        tuple(rows),
        "“exact”: Clopper-Pearson, each image its own source_id. “clusters”: source_ids are resampled, since several "
        "images share one.",
    )
    return Section(
        "false_alarm",
        "False alarms by source",
        "Real images only: how often each source is called generated, at thresholds that were chosen on val. "
        "A source far above the rate that was wanted is a kind of picture that this detector should not be used on.",
        (table,),
    )
