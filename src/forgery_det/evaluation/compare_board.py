"""Detectors on one dataset: who ranks images best, and whose lead is not luck. Numbers only; the page comes later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.core.types import GENERATED
from forgery_det.evaluation.compare_pairs import Common, Pair, adjust, common_images, compare_pairs, letters
from forgery_det.evaluation.compare_read import RunTable
from forgery_det.evaluation.filters import Filter
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.evaluation.slices import HELD_OUT
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.ranks import CriticalDifference, critical_difference


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """One line of a leaderboard.

    Args:
        name: Of the detector.
        auroc: On the images that all detectors scored.
        tpr: At the operating point.
        fpr: At the operating point.
        letters: Detectors that share a letter are not shown to differ.
        run: Its folder.
        left_out: Its images that not all others scored.
        n_bad: Files that it could not score.
    """

    name: str
    auroc: Estimate
    tpr: Estimate
    fpr: Estimate
    letters: str
    run: Path
    left_out: int
    n_bad: int


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """All detectors on one dataset.

    Args:
        dataset: Its name and split.
        common: What they said of the same images.
        standings: Best AUROC first.
        pairs: Every two of them; positions are those of `common`.
        n_seen: Generated images whose generator at least one of the detectors was trained on; None when unknown.
    """

    dataset: str
    common: Common
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    n_seen: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """All that a comparison found.

    Args:
        boards: One a dataset.
        ranks: Mean ranks over datasets; None where there are too few.
        ranks_missing: Why `ranks` is None; empty otherwise.
        config: Resolved configuration.
    """

    boards: tuple[Board, ...]
    ranks: CriticalDifference | None
    ranks_missing: str
    config: dict[str, Any]


def compare_tables(
    tables: Sequence[RunTable], config: dict[str, Any], statistics: Statistics, progress: ProgressSink = silent
) -> Findings:
    """Compare runs that were read; writes nothing."""
    groups = _by_dataset(tables)
    found = []
    for done, group in enumerate(groups, start=1):
        found.append(_measure(group, config, statistics))
        progress(Progress("comparing", done, len(groups), "datasets"))
    adjusted = iter(adjust([pair for board in found for pair in board.pairs]))
    boards = tuple(_with_letters(board, [next(adjusted) for _ in board.pairs], config["alpha"]) for board in found)
    ranks, missing = _ranks(boards, config["alpha"])
    return Findings(boards, ranks, missing, config)


def _by_dataset(tables: Sequence[RunTable]) -> list[list[RunTable]]:
    """Group runs by dataset; where no two share one, they are set side by side on the images they have in common."""
    groups: dict[str, list[RunTable]] = {}
    for table in tables:
        groups.setdefault(table.manifest_hash, []).append(table)
    return list(groups.values()) if any(len(group) > 1 for group in groups.values()) else [list(tables)]


def _measure(tables: Sequence[RunTable], config: dict[str, Any], statistics: Statistics) -> Board:
    seen = _seen_by_any(tables)
    chosen = [replace(table, table=_chosen(table, config["images"], seen)) for table in tables]
    common = common_images(chosen, config["operating_point"])
    standings = [_standing(index, table, common, statistics) for index, table in enumerate(chosen)]
    order = sorted(range(len(standings)), key=lambda index: _worse(standings[index].auroc))
    generated = common.frame.filter(pl.col("label") == GENERATED)["generator"]
    dataset = " / ".join(dict.fromkeys(f"{table.dataset}, split {table.split}" for table in tables))
    return Board(
        dataset,
        common,
        tuple(standings[index] for index in order),
        compare_pairs(common, order, statistics),
        None if seen is None else int(generated.is_in(sorted(seen)).sum()),
    )


def _worse(auroc: Estimate) -> float:
    return np.inf if auroc.value is None else -auroc.value


def _seen_by_any(tables: Sequence[RunTable]) -> frozenset[str] | None:
    known = [table.seen for table in tables if table.seen is not None]
    return frozenset().union(*known) if len(known) == len(tables) else None


def _chosen(table: RunTable, images: str, seen: frozenset[str] | None) -> pl.DataFrame:
    if images != HELD_OUT:
        wanted = Filter.parse(images)
        wanted.check(table.table, f"`images`, {table.dataset}")
        return table.table.filter(wanted.with_real())
    if seen is None:
        raise ConfigError(
            f"Expected runs that say which generators training used for `images: {images}`, got one that does not."
        )
    return table.table.filter((pl.col("label") != GENERATED) | ~pl.col("generator").is_in(sorted(seen)))


def _standing(index: int, table: RunTable, common: Common, statistics: Statistics) -> Standing:
    threshold = common.thresholds[index]
    return Standing(
        name=table.name,
        auroc=_estimate("auroc", common, index, None, statistics),
        tpr=_estimate("tpr", common, index, threshold, statistics),
        fpr=_estimate("fpr", common, index, threshold, statistics),
        letters="",
        run=table.run,
        left_out=common.left_out[index],
        n_bad=table.n_bad,
    )


def _estimate(metric: str, common: Common, index: int, threshold: float | None, statistics: Statistics) -> Estimate:
    label_N = common.labels
    counts = {"tpr": label_N.sum(), "fpr": (1 - label_N).sum()}
    fewest = int(counts.get(metric, min(counts.values())))
    if fewest < statistics.min_per_class:
        return Estimate.missing(
            len(label_N), f"not estimable (n = {fewest} images, fewer than {statistics.min_per_class})"
        )
    if metric != "auroc" and threshold is None:
        return Estimate.missing(fewest, "not estimable (the run has no threshold from val)")
    return cluster_bootstrap(
        metric, label_N, common.logit_DN[index], common.clusters,
        threshold=threshold, n_replicates=statistics.n_replicates, seed=statistics.seed,
    )  # fmt: skip


def _with_letters(board: Board, pairs: Sequence[Pair], alpha: float) -> Board:
    order = [board.common.names.index(standing.name) for standing in board.standings]
    found = letters(pairs, order, alpha)
    standings = (replace(standing, letters=text) for standing, text in zip(board.standings, found, strict=True))
    return replace(board, standings=tuple(standings), pairs=tuple(pairs))


def _ranks(boards: Sequence[Board], alpha: float) -> tuple[CriticalDifference | None, str]:
    """Return mean ranks over the datasets, or why there are none: only detectors that are on every dataset count."""
    values = [
        {standing.name: standing.auroc.value for standing in board.standings if standing.auroc.value is not None}
        for board in boards
    ]
    everywhere = sorted(set(values[0]).intersection(*values[1:]))
    try:
        return critical_difference([[row[name] for name in everywhere] for row in values], everywhere, alpha=alpha), ""
    except NotEstimableError:
        return None, (
            f"it needs at least 3 detectors that were all judged on at least 2 datasets, and there are "
            f"{len(everywhere)} on {len(boards)}"
        )
