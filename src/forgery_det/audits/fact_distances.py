"""How far apart are the classes in one fact of their files? Two distances, their intervals, and what chance does.

For each fact, with p and q the
shares of real and generated images,

    categories   total variation      D = 1/2 sum_c |p_c - q_c|
    numbers      Kolmogorov-Smirnov   D = max_x |P(x) - Q(x)|       (and Wasserstein-1 in pooled standard deviations)

D has a plain meaning: with balanced classes, the best rule on that fact alone (for numbers: the best threshold) is
right for (1 + D) / 2 of the images.

Both distances are biased upwards in small samples, and the bootstrap adds the same bias again. So the interval is the
basic one, [2 D - high, 2 D - low] of the cluster bootstrap over `source_id`s, which subtracts it (Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, section 5.2). Where nearly all values differ (sizes of unaligned
photographs), even that does not help. So a fact counts only if its distance also beats permutations of the labels
between sources (p at most 0.05 after Holm's correction over the facts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import wasserstein_distance

from forgery_det.audits.file_facts import BYTES_PER_PIXEL
from forgery_det.audits.probe import check_groups, shuffled_labels
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.comparison import holm
from forgery_det.metrics.counts import ClassCounts, counts_at
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import FloatArray, IntArray
from forgery_det.metrics.registry import Metric

NUMBERS = ("short_side_px", "aspect", BYTES_PER_PIXEL, "jpeg_quality")
CATEGORIES = (
    "size", "codec", "quantisation_tables", "chroma_subsampling", "progressive", "sample_format", "colour_profile",
    "exif",
)  # fmt: skip
N_PERMUTATIONS = 999
P_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Distance:
    """How far apart the classes are in one fact.

    Attributes:
        fact: Its name.
        kind: `total_variation` or `kolmogorov_smirnov`.
        value: In [0, 1]; None if not estimable.
        low: Lower end of the basic interval, None without one.
        high: Upper end.
        p_value: Of the permutations, after Holm; None if not estimable, or if all files agree (nothing to test).
        n: Images with the fact.
        told: Typical values of both classes, for people.
        wasserstein: Numbers only: Wasserstein-1 in pooled standard deviations.
        note: Why it is not estimable.
    """

    fact: str
    kind: str
    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    told: dict[str, str]
    wasserstein: float | None = None
    note: str = ""

    def exceeds(self, limit: float) -> bool:
        """Return whether the whole interval lies above the limit and chance does not explain the distance."""
        if self.value is None or self.p_value is None:
            return False
        # Without an interval all replicates agreed, as when each class has one value of its own.
        return (self.value if self.low is None else self.low) > limit and self.p_value <= P_LIMIT


def distances(frame: pl.DataFrame, n_replicates: int, seed: int) -> tuple[Distance, ...]:
    """Return the distance of each fact that the frame holds, with p-values corrected over them.

    Args:
        frame: Manifest rows with facts; `label` and `source_id` are read too.
        n_replicates: Of the bootstrap.
        seed: Of bootstrap and permutations.
    """
    facts = _derived(frame)
    columns = [name for name in (*NUMBERS, *CATEGORIES) if name in facts.columns]
    known = [name for name in columns if facts[name].null_count() < facts.height]
    raw = [_distance(facts.filter(pl.col(name).is_not_null()), name, n_replicates, seed) for name in known]
    tested = [index for index, one in enumerate(raw) if one.p_value is not None]
    p_values = [one.p_value for one in raw if one.p_value is not None]
    corrected = dict(zip(tested, holm(p_values).tolist(), strict=True))
    return tuple(replace(one, p_value=corrected.get(index)) for index, one in enumerate(raw))


def _derived(frame: pl.DataFrame) -> pl.DataFrame:
    added: dict[str, pl.Expr] = {}
    if {"width_px", "height_px"} <= set(frame.columns):
        width, height = pl.col("width_px"), pl.col("height_px")
        added["size"] = pl.format("{} x {}", width, height)
        added |= {"short_side_px": pl.min_horizontal(width, height), "aspect": width / height}
        if "n_bytes" in frame.columns:
            added[BYTES_PER_PIXEL] = pl.col("n_bytes") / (width * height)
    return frame.with_columns(**added)


def _distance(facts: pl.DataFrame, name: str, n_replicates: int, seed: int) -> Distance:
    label_N = facts["label"].to_numpy().astype(np.int64)
    group_N = facts["source_id"].to_numpy().astype(np.str_)
    is_number = name in NUMBERS
    metric = KOLMOGOROV_SMIRNOV if is_number else TOTAL_VARIATION
    told = _told(facts, name, is_number)
    try:
        check_groups(label_N, group_N)
    except NotEstimableError as error:
        return Distance(name, metric.name, None, None, None, None, facts.height, told, note=str(error))
    code_N = facts[name].rank("dense").to_numpy().astype(np.float64) - 1.0
    found = cluster_bootstrap(metric, label_N, code_N, group_N, n_replicates=n_replicates, seed=seed)
    if found.value is None:
        return Distance(name, metric.name, None, None, None, None, facts.height, told, note=found.note)
    if facts[name].n_unique() == 1:
        return Distance(name, metric.name, found.value, None, None, None, facts.height, told)
    low = high = None
    if found.ci_low is not None and found.ci_high is not None:
        low, high = (float(np.clip(2 * found.value - end, 0.0, 1.0)) for end in (found.ci_high, found.ci_low))
    p_value = permutation_p(metric, code_N, label_N, group_N, seed)
    moved = _wasserstein(facts[name].to_numpy().astype(np.float64), label_N) if is_number else None
    return Distance(name, metric.name, found.value, low, high, p_value, facts.height, told, moved)


def permutation_p(
    metric: Metric, code_N: FloatArray, label_N: IntArray, group_N: npt.NDArray[np.str_], seed: int
) -> float:
    """Return the share of label permutations between sources with a distance at least as large, the data included."""
    generator = np.random.default_rng(seed)
    observed = metric.function(label_N, code_N)
    if observed == 0.0:
        return 1.0
    cell_N = code_N.astype(np.intp)
    value_G = np.arange(cell_N.max() + 1, dtype=np.float64)
    assert metric.of_counts is not None  # both distances of this module have one
    as_far = 1
    for _ in range(N_PERMUTATIONS):
        counts = counts_at(value_G, cell_N, shuffled_labels(label_N, group_N, generator))
        # A sum of the same shares in another order may differ in its last bit.
        as_far += bool(metric.of_counts(counts)[0] >= observed - 1e-9)
    return as_far / (N_PERMUTATIONS + 1)


def _shares(counts: ClassCounts) -> FloatArray:
    """Return the difference between the classes' shares at each value, [R, G]."""
    counts.require("both")
    real_RG = counts.negative / counts.n_negative()[:, None]
    return np.asarray(counts.positive / counts.n_positive()[:, None] - real_RG)


def total_variation_of(counts: ClassCounts) -> FloatArray:
    """Return half the sum of absolute differences of shares, one value a replicate, [R]."""
    return np.asarray(0.5 * np.abs(_shares(counts)).sum(axis=1))


def kolmogorov_smirnov_of(counts: ClassCounts) -> FloatArray:
    """Return the largest absolute difference of cumulative shares, one value a replicate, [R]."""
    return np.asarray(np.abs(np.cumsum(_shares(counts), axis=1)).max(axis=1))


def _one(of_counts: Any) -> Any:
    def function(label_N: IntArray, value_N: FloatArray) -> float:
        value_G, cell_N = np.unique(value_N, return_inverse=True)
        return float(of_counts(counts_at(value_G, cell_N, np.asarray(label_N)))[0])

    return function


TOTAL_VARIATION = Metric(
    "total_variation", _one(total_variation_of), False, False, "Distance of categories", of_counts=total_variation_of
)
KOLMOGOROV_SMIRNOV = Metric(
    "kolmogorov_smirnov", _one(kolmogorov_smirnov_of), False, False, "Distance of numbers",
    of_counts=kolmogorov_smirnov_of,
)  # fmt: skip


def _wasserstein(value_N: FloatArray, label_N: IntArray) -> float:
    spread = float(value_N.std())
    return float(wasserstein_distance(value_N[label_N == 0], value_N[label_N == 1]) / spread) if spread else 0.0


def _told(facts: pl.DataFrame, name: str, is_number: bool) -> dict[str, str]:
    """Return the median of a number, or the commonest category with its share, of each class."""
    told = {}
    for label, side in ((0, "real"), (1, "generated")):
        values = facts.filter(pl.col("label") == label)[name]
        if not len(values):
            told[side] = "none"
        elif is_number:
            told[side] = f"median {np.median(values.to_numpy()):.4g}"
        else:
            common = values.value_counts().sort(["count", name], descending=[True, False]).row(0)
            told[side] = f"{common[0]} {common[1] / len(values):.0%}"
    return told
