"""Groups of generated images against all real ones: a metric of one group, the difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.types import GENERATED, REAL, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.cells import record_cell
from forgery_det.evaluation.slice_metrics import Values, metric_estimate, metric_record
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.group_difference import auroc_difference
from forgery_det.reporting.sections import Cell

GROUP_COLUMNS = ("auroc", "tpr@fpr_5pct")
"""Metrics of a group in a table."""


@dataclass(frozen=True, slots=True)
class GroupPart:
    """Generated images of one row of a table.

    Args:
        key: Slice in `results.parquet`.
        name: What the table shows.
        n_generated: Generated images.
        n_generators: Generators.
        found: `GROUP_COLUMNS`, in that order.
    """

    key: str
    name: str
    n_generated: int
    n_generators: int
    found: tuple[MetricRecord, ...]

    @classmethod
    def of(cls, context: ProtocolContext, key: str, name: str, wanted: pl.Expr) -> GroupPart:
        """Compute the metrics of the generated images that are wanted."""
        judged = context.judged()
        generated = judged.filter((pl.col("label") == GENERATED) & wanted.fill_null(False))
        found = tuple(group_record(metric, key, judged, wanted, context) for metric in GROUP_COLUMNS)
        return cls(key, name, generated.height, generated["generator"].n_unique(), found)

    def row(self) -> tuple[str, tuple[Cell, ...]]:
        """Return the row: its name, then the cells of `generators`, `n gen.` and each metric."""
        counts = (Cell(str(self.n_generators)), Cell(str(self.n_generated)))
        return self.name, (*counts, *(record_cell(record) for record in self.found))


def group_record(
    metric: str, key: str, judged: pl.DataFrame, wanted: pl.Expr, context: ProtocolContext
) -> MetricRecord:
    """Return a metric of some generated images against all real ones.

    Args:
        metric: `metric` or `metric@operating_point`.
        key: Slice in `results.parquet`.
        judged: Rows of the judged split.
        wanted: Which generated images; null counts as no.
        context: Thresholds and statistics.
    """
    rows = judged.filter((pl.col("label") == REAL) | wanted.fill_null(False))
    return metric_record(metric, key, metric_estimate(metric, Values.of(rows), context.thresholds, context.statistics))


def compare_groups(judged: pl.DataFrame, first: pl.Expr, second: pl.Expr, context: ProtocolContext) -> Comparison:
    """Return the AUROC of one group of generated images less that of another, against the same real images.

    Args:
        judged: Rows of the judged split.
        first: Which generated images are in the first group; null counts as no.
        second: The same for the second group.
        context: Its `statistics` say how many images a group needs.
    """
    in_first, in_second = _mask(judged, first), _mask(judged, second)
    values = Values.of(judged)
    real_N = values.label_N == REAL
    counts = [int(mask.sum()) for mask in (in_first, in_second, real_N)]
    n, least = sum(counts), context.statistics.min_per_class
    if min(counts) < least:
        words = f"{counts[0]} and {counts[1]} generated and {counts[2]} real images, at least {least} each"
        return Comparison.missing(n, f"not estimable (n = {n}: {words})")
    used = values.rows(in_first | in_second | real_N)
    if n_nan := int(np.isnan(used.logit_N).sum()):
        return Comparison.missing(n, f"not estimable (n = {n}: {n_nan} logits are NaN)")
    inside = in_first | in_second | real_N
    return auroc_difference(used.label_N, used.logit_N, in_first[inside], in_second[inside], used.cluster_N)


def _mask(judged: pl.DataFrame, wanted: pl.Expr) -> NDArray[np.bool_]:
    generated = (pl.col("label") == GENERATED) & wanted.fill_null(False)
    return judged.select(generated.alias("inside"))["inside"].to_numpy().astype(np.bool_)
