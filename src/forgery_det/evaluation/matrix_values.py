"""Trained and tested: the AUROC of every cell of a held-out matrix with its interval, and what holding out costs.

Each training was evaluated once; a column takes its generated images against all real ones. What a training without X
loses on X is a paired question: the training that saw X judged the same images, so the difference is tested with paired
DeLong over `source_id`s, and adjusted over all such differences (Holm).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from forgery_det.core.types import GENERATED
from forgery_det.evaluation.compare_pairs import common_images
from forgery_det.evaluation.compare_read import RunTable
from forgery_det.evaluation.matrix import Column, MatrixPlan, Row
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.comparison import Comparison, holm
from forgery_det.metrics.delong import paired_delong
from forgery_det.metrics.estimate import Estimate

Exposure = Literal["seen", "held out", "partly seen"]


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One training on one test.

    Args:
        row: Name of the training.
        column: Name of the test.
        auroc: With its interval; the note says why there is none.
        exposure: Whether training saw the generators of the test; None where nothing was trained.
    """

    row: str
    column: str
    auroc: Estimate
    exposure: Exposure | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """What a training loses on a test against the training that saw it; negative means a loss.

    Args:
        row: The training that is judged.
        reference: The training that saw the test's generators.
        column: The test.
        difference: AUROC of `row` less that of `reference`, paired.
        p_holm: Adjusted over all contrasts; None where it is not estimable.
    """

    row: str
    reference: str
    column: str
    difference: Comparison
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class MatrixFindings:
    """All that a matrix found.

    Args:
        plan: What was to be done.
        dataset: Name of the dataset.
        detector: What was trained.
        cells: Row by row.
        contrasts: In row order.
        config: Resolved configuration.
    """

    plan: MatrixPlan
    dataset: str
    detector: str
    cells: tuple[MatrixCell, ...]
    contrasts: tuple[Contrast, ...]
    config: Mapping[str, Any]


def measure(
    plan: MatrixPlan, tables: Mapping[str, RunTable], statistics: Statistics
) -> tuple[tuple[MatrixCell, ...], tuple[Contrast, ...]]:
    """Return every cell and every contrast of a matrix.

    Args:
        plan: Rows and columns.
        tables: Name of each row that was trained -> its evaluation.
        statistics: Replicates, seed, fewest images of a class.
    """
    cells = tuple(_cell(row, column, tables.get(row.name), statistics) for row in plan.rows for column in plan.columns)
    return cells, _adjusted([_contrast(*wanted, tables, statistics) for wanted in _wanted(plan, tables)])


def _cell(row: Row, column: Column, table: RunTable | None, statistics: Statistics) -> MatrixCell:
    if table is None:
        return MatrixCell(row.name, column.name, Estimate.missing(0, f"not trained: {row.impossible}"), None)
    shown = table.table.filter(column.filter.with_real())
    names = set(shown.filter(pl.col("label") == GENERATED)["generator"])
    seen = names & (table.seen or frozenset())
    exposure: Exposure = "held out" if not seen else "seen" if seen == names else "partly seen"
    why = _too_few(shown, statistics.min_per_class)
    if why:
        return MatrixCell(row.name, column.name, Estimate.missing(shown.height, why), exposure)
    auroc = cluster_bootstrap(
        "auroc", shown["label"].to_numpy(), shown["logit"].to_numpy(), _clusters(shown),
        n_replicates=statistics.n_replicates, seed=statistics.seed,
    )  # fmt: skip
    return MatrixCell(row.name, column.name, auroc, exposure)


def _wanted(plan: MatrixPlan, tables: Mapping[str, RunTable]) -> Iterator[tuple[Row, Row, Column]]:
    """Yield which training is held against which other one, and where."""
    reference = {name: row for row in plan.rows for name in row.reference if row.name in tables}
    for row in plan.rows:
        for column in plan.columns:
            other = reference.get(column.name)
            if other is None or row.name not in tables or row.excluded == other.excluded:
                continue
            # A leave-one-out row asks one question: what did leaving out its own column cost?
            if not row.own or row.own == column.name:
                yield row, other, column


def _contrast(row: Row, other: Row, column: Column, tables: Mapping[str, RunTable], statistics: Statistics) -> Contrast:
    chosen = [
        replace(tables[name], table=tables[name].table.filter(column.filter.with_real()))
        for name in (row.name, other.name)
    ]
    common = common_images(chosen, "")
    why = _too_few(common.frame, statistics.min_per_class)
    if why:
        return Contrast(row.name, other.name, column.name, Comparison.missing(common.frame.height, why), None)
    judged, saw = common.logit_DN
    difference = paired_delong(common.labels, judged, saw, cluster=common.clusters)
    return Contrast(row.name, other.name, column.name, difference, None)


def _adjusted(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    tested = [contrast.difference.p_value for contrast in contrasts if contrast.difference.p_value is not None]
    adjusted = iter(holm(tested).tolist())
    return tuple(
        contrast if contrast.difference.p_value is None else replace(contrast, p_holm=float(next(adjusted)))
        for contrast in contrasts
    )


def _clusters(frame: pl.DataFrame) -> np.ndarray:
    return np.asarray(frame["source_id"].to_list(), dtype=object)


def _too_few(frame: pl.DataFrame, least: int) -> str:
    n_generated = int((frame["label"] == GENERATED).sum())
    for kind, count in (("generated", n_generated), ("real", frame.height - n_generated)):
        if count < least:
            return f"not estimable (n = {count} {kind} images, fewer than {least})"
    return ""
