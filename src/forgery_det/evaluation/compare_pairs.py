"""Detectors on the same images, pair by pair: does one rank images better, does it decide better, and is that luck?

For each pair, on the images that both scored:

    paired DeLong        difference of AUROC; images of one `source_id` are one observation (`metrics.delong`)
    paired bootstrap     the same difference by resampling `source_id`s; a second opinion that assumes no normal law
    McNemar              right and wrong decisions at one operating point, each detector with its own threshold

Holm adjusts each kind of test over all pairs of all datasets, so the chance of a single false claim on the page is at
most alpha for each kind. Whether two detectors differ is said by paired DeLong alone: one rule, chosen beforehand. The
bootstrap's p-value cannot be below 2 / (replicates + 1), which many comparisons would turn into "no difference".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.compare_read import RunTable
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.metrics.comparison import Comparison, McNemar, holm, mcnemar
from forgery_det.metrics.delong import paired_delong
from forgery_det.metrics.letters import compact_letters
from forgery_det.metrics.paired_bootstrap import paired_bootstrap


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """What several detectors said of the same images.

    Args:
        names: Of the detectors, [D].
        frame: `image_id, label, source_id, generator, paradigm, decoder`, one row an image [N].
        logit_DN: Logits, detectors by images.
        thresholds: Logit threshold of the operating point for each detector; None where the run has none.
        left_out: Images of each detector that not all others scored, [D].
    """

    names: tuple[str, ...]
    frame: pl.DataFrame
    logit_DN: np.ndarray
    thresholds: tuple[float | None, ...]
    left_out: tuple[int, ...]

    @property
    def labels(self) -> np.ndarray:
        """Labels, 1 = generated."""
        return self.frame["label"].to_numpy()

    @property
    def clusters(self) -> np.ndarray:
        """`source_id` of each image."""
        return np.asarray(self.frame["source_id"].to_list(), dtype=object)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two detectors compared; differences are first less second.

    Args:
        first: Position of the one with the higher AUROC.
        second: Position of the other.
        delong: Difference of AUROC by paired DeLong.
        bootstrap: The same by the paired bootstrap.
        decisions: McNemar at the operating point; None where a threshold is missing.
        holm_delong: p-value of `delong`, adjusted over all comparisons; None without one.
        holm_bootstrap: The same of `bootstrap`.
        holm_decisions: The same of `decisions`.
    """

    first: int
    second: int
    delong: Comparison
    bootstrap: Comparison
    decisions: McNemar | None
    holm_delong: float | None = None
    holm_bootstrap: float | None = None
    holm_decisions: float | None = None


def common_images(tables: Sequence[RunTable], operating_point: str) -> Common:
    """Return what all runs said of the images that all of them scored, in the order of the first run.

    Raises:
        ConfigError: No image was scored by all, or two datasets give one image different labels.
    """
    first = tables[0]
    frame = first.table.rename({"logit": "logit_0"})
    for index, other in enumerate(tables[1:], start=1):
        theirs = other.table.select(
            "image_id", pl.col("label").alias("their_label"), pl.col("logit").alias(f"logit_{index}")
        )
        frame = frame.join(theirs, on="image_id", how="inner", maintain_order="left")
        wrong = frame.filter(pl.col("label") != pl.col("their_label"))
        if wrong.height:
            image_id = wrong["image_id"][0]
            raise ConfigError(
                f"Expected one label for each image, got two for {image_id}: {first.run} and {other.run} judge it "
                "differently."
            )
        frame = frame.drop("their_label")
    if not frame.height:
        sizes = ", ".join(
            f"{table.run} ({table.dataset}, {table.split}: {table.table.height} images)" for table in tables
        )
        raise ConfigError(f"Expected runs that scored the same images, got none in common: {sizes}.")
    logits = [f"logit_{index}" for index in range(len(tables))]
    return Common(
        names=tuple(table.name for table in tables),
        frame=frame.drop(logits),
        logit_DN=np.stack([frame[name].to_numpy() for name in logits]),
        thresholds=tuple(table.thresholds.get(operating_point) for table in tables),
        left_out=tuple(table.table.height - frame.height for table in tables),
    )


def compare_pairs(common: Common, order: Sequence[int], statistics: Statistics) -> tuple[Pair, ...]:
    """Compare every two detectors.

    Args:
        common: The detectors on the same images.
        order: Positions of the detectors, best first: in each pair the better one is `first`.
        statistics: Replicates, seed, and the fewest images of a class.
    """
    label_N, cluster_N = common.labels, common.clusters
    few = _too_few(label_N, statistics.min_per_class)
    pairs = []
    for first, second in combinations(order, 2):
        a, b = common.logit_DN[first], common.logit_DN[second]
        if few:
            missing = Comparison.missing(len(label_N), few)
            pairs.append(Pair(first, second, missing, missing, _decisions(common, first, second)))
            continue
        resampled = paired_bootstrap(
            "auroc", label_N, a, b, cluster_N, n_replicates=statistics.n_replicates, seed=statistics.seed
        )
        exact = paired_delong(label_N, a, b, cluster=cluster_N)
        pairs.append(Pair(first, second, exact, resampled, _decisions(common, first, second)))
    return tuple(pairs)


def adjust(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return the pairs with Holm's p-values over all of them, each kind of test by itself."""
    exact = _holm(pairs, lambda pair: pair.delong.p_value)
    resampled = _holm(pairs, lambda pair: pair.bootstrap.p_value)
    decided = _holm(pairs, lambda pair: None if pair.decisions is None else pair.decisions.p_value)
    return tuple(
        replace(pair, holm_delong=p, holm_bootstrap=q, holm_decisions=r)
        for pair, p, q, r in zip(pairs, exact, resampled, decided, strict=True)
    )


def differ(pair: Pair, alpha: float) -> bool:
    """Tell whether the pair's AUROCs are shown to differ."""
    return pair.holm_delong is not None and pair.holm_delong <= alpha


def letters(pairs: Sequence[Pair], order: Sequence[int], alpha: float) -> tuple[str, ...]:
    """Return the significance letters of the detectors, in the given order; a dash where no pair could be tested."""
    if all(pair.holm_delong is None for pair in pairs):
        return ("-",) * len(order)
    place = {detector: position for position, detector in enumerate(order)}
    different = [(place[pair.first], place[pair.second]) for pair in pairs if differ(pair, alpha)]
    return compact_letters(len(order), different)


def _too_few(label_N: np.ndarray, least: int) -> str:
    counts = {"generated": int(label_N.sum()), "real": int((1 - label_N).sum())}
    for kind, count in counts.items():
        if count < least:
            return f"not estimable (n = {count} {kind} images, fewer than {least})"
    return ""


def _decisions(common: Common, first: int, second: int) -> McNemar | None:
    thresholds = common.thresholds[first], common.thresholds[second]
    if thresholds[0] is None or thresholds[1] is None:
        return None
    wanted_N = common.labels == 1
    right = [
        (common.logit_DN[detector] >= threshold) == wanted_N
        for detector, threshold in zip((first, second), thresholds, strict=True)
    ]
    return mcnemar(right[0], right[1], cluster=common.clusters)


def _holm(pairs: Sequence[Pair], p_of: Callable[[Pair], float | None]) -> list[float | None]:
    """Adjust the p-values that are there; a pair without one is no comparison."""
    values = [p_of(pair) for pair in pairs]
    adjusted = iter(holm([value for value in values if value is not None]).tolist())
    return [None if value is None else float(next(adjusted)) for value in values]
