"""What a protocol is: a function from predictions and manifest to results, with nothing fitted on the judged split.

    protocol(context, **options from YAML) -> ProtocolResult

All protocols read the same table, which is scored once. To add one: a function of this shape, one line in
`protocols.registry`, a reference test with a planted effect and one without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from forgery_det.core.types import CLEAN, GENERATED, MetricRecord
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.evaluation.thresholds import Thresholds
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import Section


@dataclass(frozen=True, slots=True, eq=False)
class ProtocolContext:
    """What every protocol is given.

    Args:
        table: Every scored row, joined with the manifest: its columns, and `perturbation`, `severity`, `logit`,
            `score`. Perturbed copies of an image are rows of their own.
        split: The judged split.
        thresholds: From the checkpoint or from `val`; never from the judged split.
        statistics: Replicates, seed, smallest slice.
        seen: Generators that training used; None when nobody knows.
        training: The checkpoint's summary of its training data.
        manifest: Every row of the manifest, those of unscored splits included; for facts about generators, never for
            scores. None stands for the rows of `table`.
    """

    table: pl.DataFrame
    split: str
    thresholds: Thresholds
    statistics: Statistics
    seen: frozenset[str] | None
    training: Mapping[str, Any]
    manifest: pl.DataFrame | None = None

    def judged(self) -> pl.DataFrame:
        """Return the rows of the judged split as they are stored, without perturbed copies."""
        return self.perturbed().filter(pl.col("perturbation") == CLEAN)

    def perturbed(self) -> pl.DataFrame:
        """Return all rows of the judged split."""
        return self.table.filter(pl.col("split") == self.split)

    def generators(self) -> pl.DataFrame:
        """Return what the dataset knows of each generator: `generator`, `paradigm`, `decoder`, `release_date`.

        One row a generator, sorted by name; of a generator with several dates, the first.
        """
        rows = self.table if self.manifest is None else self.manifest
        return (
            rows.filter(pl.col("label") == GENERATED)
            .group_by("generator")
            .agg(pl.col("paradigm").sort().first(), pl.col("decoder").sort().first(), pl.col("release_date").min())
            .sort("generator")
        )


@dataclass(frozen=True, slots=True)
class ProtocolResult:
    """What a protocol found.

    Args:
        records: Rows of `results.parquet`.
        section: What the report shows.
        caveats: What the report's summary must say; empty when there is nothing to warn of.
    """

    records: tuple[MetricRecord, ...]
    section: Section
    caveats: tuple[Caveat, ...] = ()


class EvaluationProtocol(Protocol):
    """The shape of a protocol; options are keywords with defaults, checked against the YAML."""

    def __call__(self, context: ProtocolContext, **options: Any) -> ProtocolResult:
        """Judge the predictions."""
