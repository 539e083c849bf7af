"""Does the detector hold on long, descriptive prompts? By length, by level of the same prompt, and by regression.

Long prompts are what MLLMs are praised for, and most benchmarks hold short ones. Three looks, from the plain one to the
one that separates causes:

1. bins of prompt length, in words and in CLIP tokens, for each paradigm: AUROC and TPR against all real images, and the
   mean logit. The bins may differ in generator and in subject as well as in length;
2. the same idea written at levels v0, v1, v2 (`prompt_id`): paired differences of logits, where idea and generator are
   the same on both sides (`prompt_length_levels`);
3. a regression of the logit on log2(words) x paradigm among generated images, with the test of whether the slopes
   differ (`prompt_length_slopes`). A slope is the change of the logit for each doubling of the prompt.

Many generators read their prompt through CLIP, which cuts it at 77 tokens (Radford et al. 2021): beyond that the image
cannot depend on what was written. `token_limit` marks that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from forgery_det.core.types import GENERATED, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.cells import record_cell
from forgery_det.evaluation.protocols.groups import group_record
from forgery_det.evaluation.protocols.prompt_length_levels import level_contrasts
from forgery_det.evaluation.protocols.prompt_length_slopes import fit_slopes, mean_logit
from forgery_det.evaluation.slices import PROMPT_WORD_BINS, prompt_bins
from forgery_det.reporting.sections import Cell, CurveChart, Section, SectionTable, Series

TOKEN_BINS = (20, 40, 77, 154)
CLIP_LIMIT = 77
"""Tokens that CLIP's text encoder reads, the marks of start and end among them."""

_METRICS = ("auroc", "tpr@fpr_1pct", "tpr@fpr_5pct")
_HEADS = ("n gen.", "AUROC", "TPR at 1 % FPR", "TPR at 5 % FPR", "mean logit")
_ALL = "all"


def prompt_length(
    context: ProtocolContext,
    *,
    word_bins: Sequence[int] = PROMPT_WORD_BINS,
    token_bins: Sequence[int] = TOKEN_BINS,
    token_limit: int = CLIP_LIMIT,
) -> ProtocolResult:
    """Judge generated images by the length of their prompts.

    Args:
        context: Predictions with `prompt_words`, `prompt_clip_tokens`, `prompt_id` and `prompt_level`.
        word_bins: Last word count of each bin but the open last one.
        token_bins: The same in CLIP tokens.
        token_limit: Where a generator's text encoder cuts the prompt; marked in the figure, and named in the table when
            it is the end of a bin.

    Raises:
        ConfigError: The bins are not ascending positive numbers.
    """
    words = _Lengths.of(context, "prompt_words", word_bins, None)
    tokens = _Lengths.of(context, "prompt_clip_tokens", token_bins, token_limit)
    levels = level_contrasts(context)
    slopes = fit_slopes(context)
    charts = [words.chart("prompt_length_words", "words in the prompt")]
    if tokens.n_known:
        charts.append(tokens.chart("prompt_length_tokens", "CLIP tokens in the prompt"))
    charts += slopes.charts()
    section = Section(
        "prompt_length",
        "Prompt length",
        "Generated images by the length of the prompt they were made from, against all real images. Bins differ in "
        "generator and subject as well as in length; the paired levels and the regression below say more.",
        (words.table("By words"), tokens.table("By CLIP tokens"), levels.table(), *slopes.tables()),
        tuple(charts),
    )
    records = (*words.records(), *tokens.records(), *levels.records, *slopes.records)
    return ProtocolResult(records, section, (*levels.caveats(), *slopes.caveats()))


@dataclass(frozen=True, slots=True)
class _Bin:
    """One bin of one paradigm: where it lies on the axis, and what was found there."""

    paradigm: str
    name: str
    middle: float
    n: int
    found: tuple[MetricRecord, ...]


@dataclass(frozen=True, slots=True)
class _Lengths:
    """All bins of one measure of length."""

    column: str
    bins: tuple[_Bin, ...]
    n_known: int
    n_generated: int
    limit: int | None

    @classmethod
    def of(cls, context: ProtocolContext, column: str, last: Sequence[int], limit: int | None) -> _Lengths:
        judged = context.judged()
        generated = judged.filter(pl.col("label") == GENERATED)
        known = generated.filter(pl.col(column).fill_null(0) > 0)
        paradigms = [_ALL, *sorted(known["paradigm"].unique().to_list())]
        found = []
        for name, low, high in prompt_bins(last):
            inside = (pl.col(column) >= low) & (pl.col(column) <= high if high is not None else pl.lit(True))
            for paradigm in paradigms:
                wanted = inside if paradigm == _ALL else inside & (pl.col("paradigm") == paradigm)
                rows = known.filter(wanted)
                if not rows.height and paradigm != _ALL:
                    continue
                key = f"paradigm={paradigm},{column}={name}"
                cells = [group_record(metric, key, judged, wanted, context) for metric in _METRICS]
                cells.append(mean_logit(rows, key, context.statistics))
                middle = float(np.exp(np.log(rows[column].to_numpy()).mean())) if rows.height else float(low)
                found.append(_Bin(paradigm, name, middle, rows.height, tuple(cells)))
        return cls(column, tuple(found) if known.height else (), known.height, generated.height, limit)

    def records(self) -> tuple[MetricRecord, ...]:
        return tuple(record for part in self.bins for record in part.found)

    def table(self, title: str) -> SectionTable:
        rows = [
            (self._row_name(part), (Cell(str(part.n)), *(record_cell(record) for record in part.found)))
            for part in self.bins
        ]
        if not rows:
            why = f"not estimable (n = 0: no generated image has {self.column})"
            rows = [("no bin", (Cell("0"), *(Cell("not estimable", note=why) for _ in _HEADS[1:])))]
        explanation = f"The length is known for {self.n_known} of {self.n_generated} generated images."
        if self.limit is not None:
            explanation += (
                f" A CLIP text encoder reads {self.limit} tokens, start and end included, and cuts the rest: a "
                "generator that has no other encoder never saw what lies beyond."
            )
        return SectionTable(title, ("prompt length, paradigm", *_HEADS), tuple(rows), explanation)

    def _row_name(self, part: _Bin) -> str:
        first = int(part.name.rstrip("+").split("-")[0])
        beyond = self.limit is not None and first > self.limit
        return f"{part.name}, {part.paradigm}{f' (beyond {self.limit})' if beyond else ''}"

    def chart(self, name: str, label: str) -> CurveChart:
        # "all" last: the others then keep the colours that they have in the figure of the slopes.
        paradigms = [*sorted({part.paradigm for part in self.bins} - {_ALL}), _ALL]
        if len(paradigms) == 2:
            # One paradigm alone is all images.
            paradigms = paradigms[1:]
        series = []
        for paradigm in paradigms:
            parts = [part for part in self.bins if part.paradigm == paradigm and part.found[0].value is not None]
            auroc = [part.found[0] for part in parts]
            series.append(
                Series(
                    "all paradigms" if paradigm == _ALL else paradigm,
                    tuple(part.middle for part in parts),
                    tuple(record.value for record in auroc),
                    tuple(record.ci_low for record in auroc),
                    tuple(record.ci_high for record in auroc),
                )
            )
        caption = "AUROC of each bin at the geometric mean of its lengths, with its interval. Dotted: chance."
        marks = ((float(self.limit), f"CLIP reads no further ({self.limit})"),) if self.limit else ()
        return CurveChart(
            name, f"AUROC by {label}", caption, f"{label} (log scale)", "AUROC", tuple(series), log_x=True,
            reference_y=0.5, marks_x=marks,
        )  # fmt: skip
