"""How the logit of generated images moves with the length of the prompt, in each paradigm.

    logit = a_p + b_p log2(words) + error        p: paradigm, treatment coding against the largest one

`b_p` is the change of the logit for each doubling of the prompt. The interaction test asks whether all `b_p` are equal.
Images that share a prompt or a `source_id` are one cluster (`metrics.regression`, cr3). A slope's interval has the
clusters of its own paradigm less one as degrees of freedom. A paradigm with fewer than `MIN_CLUSTERS` clusters, or with
one length only, has no slope and is left out of the test; the table says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from forgery_det.core.types import GENERATED, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.cells import p_cell, p_record, record_cell, words_of
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.metrics.comparison import holm
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import IntArray
from forgery_det.metrics.regression import ClusterFit, SlopeDesign, fit_clustered, slope_design
from forgery_det.metrics.resampling import cluster_codes
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import Cell, CurveChart, SectionTable, Series

MIN_CLUSTERS = 10
"""Fewest clusters of a paradigm for a slope: with fewer the test refuses true hypotheses too often."""

SLOPE, SLOPE_P = "logit_slope_log2_words", "logit_slope_log2_words_p"
INTERACTION_P = "interaction_p"
_INTERACTION_KEY = "term=paradigm:log2_words"
_GRID = 25


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope of one paradigm, or why it has none."""

    paradigm: str
    n: int
    n_clusters: int
    value: MetricRecord
    p_value: MetricRecord
    line: Series | None = None


@dataclass(frozen=True, slots=True)
class Slopes:
    """All slopes and the test of whether they differ."""

    found: tuple[Slope, ...]
    reference: str
    interaction: MetricRecord
    statistic: str = ""
    records: tuple[MetricRecord, ...] = field(default=())

    def tables(self) -> tuple[SectionTable, ...]:
        """Return the table of the slopes, the interaction test as its last row."""
        rows = [
            (s.paradigm, (Cell(str(s.n)), Cell(str(s.n_clusters)), record_cell(s.value), p_cell(s.p_value)))
            for s in self.found
        ]
        test = (Cell(str(self.interaction.n)), Cell(""), Cell(self.statistic), p_cell(self.interaction))
        rows.append(("all slopes equal?", test))
        coding = f" Treatment coding; the reference paradigm is {self.reference}." if self.reference else ""
        explanation = (
            "Regression of the logit on log2(words) in each paradigm, generated images only: the change of the logit "
            f"for each doubling of the prompt, with cluster-robust (CR3) intervals.{coding} Clusters are images that "
            "share a prompt or a source_id. The last row is Wald's test of the interaction."
        )
        return (
            SectionTable(
                "Logit by prompt length", ("paradigm", "n gen.", "clusters", "slope", "p"), tuple(rows), explanation
            ),
        )

    def charts(self) -> list[CurveChart]:
        """Return the fitted lines."""
        lines = tuple(s.line for s in sorted(self.found, key=lambda s: s.paradigm) if s.line is not None)
        if not lines:
            return []
        caption = "Fitted mean logit of generated images in each paradigm, with the 95 % band of the line."
        return [
            CurveChart(
                "prompt_length_logit", "Logit by words in the prompt", caption, "words in the prompt (log scale)",
                "logit (higher = generated)", lines, log_x=True,
            )
        ]  # fmt: skip

    def caveats(self) -> Iterator[Caveat]:
        """Yield what the report's summary must say."""
        p_value = self.interaction.value
        if p_value is not None and p_value < 0.05:
            yield Caveat(
                "doubt",
                f"Prompt length matters more in one paradigm than in another (interaction: {self.statistic}, "
                f"p = {p_value:.2g}, n = {self.interaction.n}): results on short prompts do not carry over.",
            )
        tested = [s for s in self.found if s.p_value.value is not None]
        for slope, adjusted in zip(tested, holm([s.p_value.value or 0.0 for s in tested]), strict=True):
            if adjusted < 0.05 and slope.value.value is not None and slope.value.value < 0.0:
                yield Caveat(
                    "doubt",
                    f"In the paradigm {slope.paradigm} each doubling of the prompt changes the logit by "
                    f"{words_of(slope.value)} (p = {adjusted:.2g} after Holm): long prompts are harder to detect.",
                )


def mean_logit(rows: pl.DataFrame, key: str, statistics: Statistics) -> MetricRecord:
    """Return the mean logit of some generated images with its cluster-robust t interval."""
    n = rows.height
    if n < statistics.min_per_class:
        why = f"not estimable (n = {n} generated images, fewer than {statistics.min_per_class})"
        return MetricRecord("mean_logit", key, None, None, None, n, None, why)
    logit_N = rows["logit"].to_numpy()
    if n_bad := int((~np.isfinite(logit_N)).sum()):
        why = f"not estimable (n = {n}: {n_bad} logits are not finite)"
        return MetricRecord("mean_logit", key, None, None, None, n, None, why)
    try:
        found = fit_clustered(np.ones((n, 1)), logit_N, prompt_clusters(rows)).contrast([1.0])
    except NotEstimableError as error:
        why = f"interval not estimable: {error}"
        return MetricRecord("mean_logit", key, float(logit_N.mean()), None, None, n, None, why)
    return MetricRecord("mean_logit", key, found.value, found.ci_low, found.ci_high, n, None)


def prompt_clusters(rows: pl.DataFrame) -> IntArray:
    """Return the cluster of each row [N]: rows that share a `prompt_id` or a `source_id`, directly or through others.

    Example:
        >>> rows = pl.DataFrame({"prompt_id": ["p", "p", None, "q"], "source_id": ["a", "b", "b", "c"]})
        >>> prompt_clusters(rows).tolist()
        [0, 0, 0, 1]
    """
    prompts = [
        ("row", index) if prompt is None else ("prompt", prompt) for index, prompt in enumerate(rows["prompt_id"])
    ]
    names = {name: code for code, name in enumerate(dict.fromkeys(prompts))}
    prompt_N = np.array([names[name] for name in prompts], dtype=np.int64)
    source_N, n_sources = cluster_codes(np.asarray(rows["source_id"].to_list(), dtype=object))
    size = n_sources + len(names)
    graph = coo_array((np.ones(rows.height), (source_N, n_sources + prompt_N)), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    return np.asarray(np.unique(component[source_N], return_inverse=True)[1], dtype=np.int64)


def fit_slopes(context: ProtocolContext) -> Slopes:
    """Return the slope of each paradigm among the generated images of the judged split whose prompt is known."""
    rows = context.judged().filter(
        (pl.col("label") == GENERATED) & (pl.col("prompt_words").fill_null(0) > 0) & pl.col("logit").is_finite()
    )
    rows = rows.with_columns(cluster=pl.Series(prompt_clusters(rows) if rows.height else [], dtype=pl.Int64()))
    by_paradigm = {str(name[0]): part for name, part in sorted(rows.group_by("paradigm"), key=lambda item: item[0])}
    refused = {name: why for name, part in by_paradigm.items() if (why := _refusal(part))}
    kept = rows.filter(~pl.col("paradigm").is_in(list(refused)))
    left_out = tuple(_missing(name, by_paradigm[name], why) for name, why in refused.items())
    if not kept.height:
        return _collected(left_out, "", _no_test(rows.height, "no paradigm has a slope"))
    reference = kept.group_by("paradigm").len().sort(["len", "paradigm"], descending=[True, False])["paradigm"][0]
    design = slope_design(np.log2(kept["prompt_words"].to_numpy()), kept["paradigm"].to_list(), reference)
    try:
        fit = fit_clustered(design.design_NP, kept["logit"].to_numpy(), kept["cluster"].to_numpy())
    except NotEstimableError as error:
        fitted = tuple(_missing(name, by_paradigm[name], str(error)) for name in design.groups)
        return _collected(fitted + left_out, reference, _no_test(kept.height, str(error)))
    fitted = tuple(_slope(name, by_paradigm[name], design, fit) for name in design.groups)
    return _collected(fitted + left_out, reference, *_interaction(design, fit))


def _refusal(part: pl.DataFrame) -> str:
    n, n_clusters = part.height, part["cluster"].n_unique()
    if n_clusters < MIN_CLUSTERS:
        return f"not estimable (n = {n}: {n_clusters} clusters, fewer than {MIN_CLUSTERS})"
    if part["prompt_words"].n_unique() < 2:
        return f"not estimable (n = {n}: all prompts have one length)"
    return ""


def _missing(name: str, part: pl.DataFrame, why: str) -> Slope:
    key, n = f"paradigm={name}", part.height
    value = MetricRecord(SLOPE, key, None, None, None, n, None, why)
    return Slope(name, n, part["cluster"].n_unique(), value, p_record(SLOPE_P, key, None, n, why))


def _no_test(n: int, why: str) -> MetricRecord:
    note = why if why.startswith("not estimable") else f"not estimable (n = {n}: {why})"
    return p_record(INTERACTION_P, _INTERACTION_KEY, None, n, note)


def _slope(name: str, part: pl.DataFrame, design: SlopeDesign, fit: ClusterFit) -> Slope:
    n_clusters, key = part["cluster"].n_unique(), f"paradigm={name}"
    found = fit.contrast(design.slope(name), df=n_clusters - 1)
    value = MetricRecord(SLOPE, key, found.value, found.ci_low, found.ci_high, part.height, None)
    words = part["prompt_words"].to_numpy()
    grid = np.geomspace(words.min(), words.max(), _GRID)
    levels = [fit.contrast(design.level(name, float(np.log2(x))), df=n_clusters - 1) for x in grid]
    line = Series(
        f"{name} (n = {part.height})", tuple(grid.tolist()), tuple(c.value for c in levels),
        tuple(c.ci_low for c in levels), tuple(c.ci_high for c in levels),
    )  # fmt: skip
    return Slope(name, part.height, n_clusters, value, p_record(SLOPE_P, key, found.p_value, part.height), line)


def _interaction(design: SlopeDesign, fit: ClusterFit) -> tuple[MetricRecord, str]:
    if len(design.groups) < 2:
        return _no_test(fit.n, "one paradigm has a slope, so there is nothing to compare"), ""
    try:
        test = fit.wald(design.same_slopes())
    except NotEstimableError as error:
        return _no_test(fit.n, str(error)), ""
    statistic = f"F({test.df_numerator}, {test.df_denominator}) = {test.statistic:.2f}"
    note = f"Wald {statistic}; reference paradigm {design.groups[0]}"
    return p_record(INTERACTION_P, _INTERACTION_KEY, test.p_value, fit.n, note), statistic


def _collected(found: tuple[Slope, ...], reference: str, interaction: MetricRecord, statistic: str = "") -> Slopes:
    records = [record for slope in found for record in (slope.value, slope.p_value)]
    return Slopes(found, reference, interaction, statistic, (*records, interaction))
