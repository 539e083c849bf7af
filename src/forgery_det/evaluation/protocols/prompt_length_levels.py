"""The same idea written short and long: paired differences of logits between prompt levels.

    d = mean logit of (prompt_id, generator) at the longer level - the same at the shorter one

Idea and generator are the same on both sides, so what is left is the writing. Pairs that share a `prompt_id` are one
cluster: they are drawn together in the bootstrap of the mean, and their signs are flipped together in the test
(`metrics.sign_flip`). The p-values of the three contrasts are corrected after Holm for the warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from forgery_det.core.types import GENERATED, PROMPT_LEVELS, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.cells import p_cell, p_record, record_cell, words_of
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.comparison import holm
from forgery_det.metrics.counts import ClassCounts
from forgery_det.metrics.inputs import FloatArray
from forgery_det.metrics.registry import Metric
from forgery_det.metrics.sign_flip import sign_flip_test
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import Cell, SectionTable

CONTRASTS = (("v0", "v1"), ("v1", "v2"), ("v0", "v2"))
assert {level for pair in CONTRASTS for level in pair} == set(PROMPT_LEVELS)


def _mean(_: FloatArray, value: FloatArray) -> float:
    return float(np.asarray(value).mean())


def _mean_of(counts: ClassCounts) -> FloatArray:
    count_RG = counts.negative + counts.positive
    return np.asarray(count_RG @ counts.value / count_RG.sum(axis=1))


MEAN = Metric("mean", _mean, False, True, "Mean of the values", needs="generated", of_counts=_mean_of)
"""Mean of paired differences as a metric of "generated" values, for the bootstrap."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One contrast of two levels: its name, the pairs, the mean difference and its p-value."""

    name: str
    n_pairs: int
    n_prompts: int
    difference: MetricRecord
    p_value: MetricRecord


@dataclass(frozen=True, slots=True)
class LevelContrasts:
    """All contrasts."""

    found: tuple[Contrast, ...]

    @property
    def records(self) -> tuple[MetricRecord, ...]:
        """Rows of `results.parquet`."""
        return tuple(record for contrast in self.found for record in (contrast.difference, contrast.p_value))

    def table(self) -> SectionTable:
        """Return the table of the contrasts."""
        rows = tuple(
            (
                contrast.name,
                (
                    Cell(str(contrast.n_pairs)),
                    Cell(str(contrast.n_prompts)),
                    record_cell(contrast.difference),
                    p_cell(contrast.p_value),
                ),
            )
            for contrast in self.found
        )
        return SectionTable(
            "The same prompt, written longer",
            ("levels", "pairs", "prompt_ids", "logit, longer less shorter", "p"),
            rows,
            "v0 is the short prompt, v1 and v2 the same idea expanded once and twice. A pair is one prompt_id and one "
            "generator at both levels; below 0, longer prompts are harder to detect. “p”: signs flipped by prompt_id.",
        )

    def caveats(self) -> Iterator[Caveat]:
        """Yield what the report's summary must say."""
        tested = [c for c in self.found if c.p_value.value is not None]
        adjusted = holm([c.p_value.value or 0.0 for c in tested])
        for contrast, p_value in zip(tested, adjusted, strict=True):
            if p_value < 0.05 and contrast.difference.value is not None and contrast.difference.value < 0.0:
                change = f"{words_of(contrast.difference)} pairs (p = {p_value:.2g} after Holm)"
                yield Caveat("doubt", f"The same prompt written longer ({contrast.name}) lowers the logit: {change}.")


def level_contrasts(context: ProtocolContext) -> LevelContrasts:
    """Return the paired differences of logits between prompt levels."""
    usable = context.judged().filter(
        (pl.col("label") == GENERATED)
        & pl.col("prompt_id").is_not_null()
        & pl.col("prompt_level").is_not_null()
        & pl.col("logit").is_not_nan()
    )
    means = usable.group_by("prompt_id", "generator", "prompt_level").agg(pl.col("logit").mean())
    return LevelContrasts(tuple(_contrast(means, *pair, context.statistics) for pair in CONTRASTS))


def _contrast(means: pl.DataFrame, shorter: str, longer: str, statistics: Statistics) -> Contrast:
    sides = [means.filter(pl.col("prompt_level") == level).drop("prompt_level") for level in (shorter, longer)]
    pairs = sides[0].join(sides[1], on=["prompt_id", "generator"], suffix="_longer").sort("prompt_id", "generator")
    key = f"prompt_level={longer}-{shorter}"
    n, n_prompts = pairs.height, pairs["prompt_id"].n_unique()
    name = f"{shorter} to {longer}"
    if n_prompts < statistics.min_per_class:
        why = f"not estimable (n = {n} pairs of {n_prompts} prompt_ids, fewer than {statistics.min_per_class})"
        missing = MetricRecord("logit_difference", key, None, None, None, n, None, why)
        return Contrast(name, n, n_prompts, missing, p_record("logit_difference_p", key, None, n, why))
    difference_N = (pairs["logit_longer"] - pairs["logit"]).to_numpy()
    cluster_N = np.asarray(pairs["prompt_id"].to_list(), dtype=object)
    estimate = cluster_bootstrap(
        MEAN, np.ones(n), difference_N, cluster_N, n_replicates=statistics.n_replicates, seed=statistics.seed
    )
    p_value = sign_flip_test(difference_N, cluster_N, seed=statistics.seed)
    note = estimate.note.replace("generated clusters", "prompt_ids")
    difference = MetricRecord("logit_difference", key, estimate.value, estimate.ci_low, estimate.ci_high, n, None, note)
    return Contrast(name, n, n_prompts, difference, p_record("logit_difference_p", key, p_value, n))
