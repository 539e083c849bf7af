"""Does the detector hold on generators, paradigms and decoders it never saw? From the predictions of one run.

Each generator of the judged split is `seen` or `held out`. A paradigm (diffusion, mllm ...) or a decoder (vae, vq ...)
is held out when no generator seen in training has it: a new diffusion model is a held-out generator of a seen paradigm,
and usually the easier case. For each of the three,

    difference = AUROC(held out) - AUROC(seen)        with `metrics.group_difference`

The worst of many generators looks bad by chance alone, so each one is tested against all other generated images, and
the p-values are corrected for their number (Holm 1979). A training for each held-out part is another matter, a matrix
over trainings; here one detector is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from forgery_det.core.types import GENERATED, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.cells import (
    DIFFERENCE_P_HOLM,
    difference_records,
    p_cell,
    p_record,
    record_cell,
    words_of,
)
from forgery_det.evaluation.protocols.groups import GroupPart, compare_groups
from forgery_det.metrics.comparison import holm
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import Cell, Section, SectionTable

LEVELS = ("generator", "paradigm", "decoder")
UNKNOWN = "unknown"
_WORDS = {"seen": "seen", "held_out": "held out", UNKNOWN: "unknown"}


def held_out_generator(context: ProtocolContext) -> ProtocolResult:
    """Set seen against held-out generators, paradigms and decoders, and find the worst generator.

    Args:
        context: Predictions and the generators seen in training.
    """
    levels = tuple(_Level.of(context, name) for name in LEVELS)
    members = tuple(_Members.of(context, level) for level in levels)
    records = [record for level in levels for record in level.records()]
    records += [record for member in members for record in member.records()]
    tables = (_table(levels, context), *(member.table() for member in members if member.rows))
    section = Section(
        "held_out_generator",
        "Held-out generators",
        "A detector in use meets generators that it was not trained on. A paradigm or a decoder is held out when no "
        "generator seen in training has it; images whose paradigm or decoder is unknown are on neither side.",
        tables,
    )
    return ProtocolResult(tuple(records), section, tuple(members[0].caveats()))


@dataclass(frozen=True, slots=True)
class _Level:
    """Seen against held out on one level: generators, paradigms or decoders."""

    name: str
    seen: frozenset[str] | None
    parts: tuple[GroupPart, ...]
    difference: tuple[MetricRecord, ...]

    @classmethod
    def of(cls, context: ProtocolContext, name: str) -> _Level:
        seen = _seen_values(context, name)
        if seen is None:
            return cls(name, None, (), ())
        known, inside = pl.col(name) != UNKNOWN, pl.col(name).is_in(sorted(seen))
        key = f"level={name},exposure"
        parts = (
            GroupPart.of(context, f"{key}=seen", f"{name}s seen", known & inside),
            GroupPart.of(context, f"{key}=held_out", f"{name}s held out", known & ~inside),
        )
        comparison = compare_groups(context.judged(), known & ~inside, known & inside, context)
        return cls(name, seen, parts, difference_records(f"{key}=held_out-seen", comparison))

    def records(self) -> list[MetricRecord]:
        return [record for part in self.parts for record in part.found] + list(self.difference)

    def exposure(self, value: str) -> str:
        if self.seen is None or value == UNKNOWN:
            return UNKNOWN
        return "seen" if value in self.seen else "held_out"


def _seen_values(context: ProtocolContext, level: str) -> frozenset[str] | None:
    if context.seen is None or level == "generator":
        return context.seen
    known = context.generators().filter(pl.col("generator").is_in(sorted(context.seen)))
    return frozenset(known[level].to_list()) - {UNKNOWN}


def _table(levels: Sequence[_Level], context: ProtocolContext) -> SectionTable:
    rows = []
    for level in levels:
        blank = (Cell(""), Cell(""))
        tests = (record_cell(level.difference[0]), p_cell(level.difference[1])) if level.difference else blank
        for part, end in zip(level.parts, (blank, tests), strict=False):
            name, cells = part.row()
            rows.append((name, (*cells, *end)))
    return SectionTable(
        "Seen against held out",
        ("generated images of", "generators", "n gen.", "AUROC", "TPR at 5 % FPR", "AUROC less seen", "p"),
        tuple(rows),
        _what_is_known(context),
    )


def _what_is_known(context: ProtocolContext) -> str:
    if context.seen is None:
        return "Nobody recorded which generators were seen in training, so nothing can be called seen or held out."
    known = set(context.generators()["generator"].to_list())
    strangers = sorted(context.seen - known)
    if not strangers:
        return "“p”: two-sided, of no difference."
    return (
        f"“p”: two-sided, of no difference. {len(strangers)} of {len(context.seen)} seen generators are not in this "
        "dataset, so their paradigm and decoder are not known here: a paradigm or decoder that only they have is "
        "called held out."
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One generator, paradigm or decoder against all other generated images."""

    part: GroupPart
    value: str
    exposure: str
    difference: tuple[MetricRecord, MetricRecord]
    holm: MetricRecord


@dataclass(frozen=True, slots=True)
class _Members:
    """The values of one level that have enough images, the worst first, and how many have not."""

    level: str
    rows: tuple[_Row, ...]
    n_small: int
    least: int

    @classmethod
    def of(cls, context: ProtocolContext, level: _Level) -> _Members:
        judged = context.judged()
        generated = judged.filter(pl.col("label") == GENERATED)
        counts = dict(generated.group_by(level.name).len().iter_rows())
        least = context.statistics.min_per_class
        values = sorted(value for value, count in counts.items() if count >= least)
        parts, pairs = [], []
        for value in values:
            chosen = pl.col(level.name) == value
            parts.append(GroupPart.of(context, f"level={level.name},{level.name}={value}", value, chosen))
            key = f"{level.name}={value},against=rest"
            pairs.append(difference_records(key, compare_groups(judged, chosen, ~chosen, context)))
        corrected = _corrected([pair[1] for pair in pairs])
        rows = [
            _Row(part, value, level.exposure(value), pair, adjusted)
            for part, value, pair, adjusted in zip(parts, values, pairs, corrected, strict=True)
        ]
        rows.sort(key=lambda row: (row.part.found[0].value is None, row.part.found[0].value or 0.0, row.value))
        return cls(level.name, tuple(rows), len(counts) - len(values), least)

    def records(self) -> list[MetricRecord]:
        return [record for row in self.rows for record in (*row.part.found, *row.difference, row.holm)]

    def table(self) -> SectionTable:
        # A generator is one generator: the first count says nothing.
        skipped = 1 if self.level == "generator" else 0
        heads = ("generators", "n gen.", "AUROC", "TPR at 5 % FPR")[skipped:]
        rows = []
        for row in self.rows:
            name, cells = row.part.row()
            exposure = Cell(_WORDS[row.exposure])
            tests = (record_cell(row.difference[0]), p_cell(row.difference[1]), p_cell(row.holm))
            rows.append((name, (exposure, *cells[skipped:], *tests)))
        small = ""
        if self.n_small:
            small = f" {self.n_small} more have fewer than {self.least} images and stand in the results by slice alone."
        return SectionTable(
            f"Each {self.level} against the rest",
            (self.level, "in training", *heads, "less the rest", "p", "p, Holm"),
            tuple(rows),
            f"“less the rest”: its AUROC less that of all other generated images; worst first.{small}",
        )

    def caveats(self) -> Iterator[Caveat]:
        estimable = [row for row in self.rows if row.part.found[0].value is not None]
        if not estimable:
            return
        worst = estimable[0]
        tested = sum(row.holm.value is not None for row in self.rows)
        who = f"{worst.value} ({_WORDS[worst.exposure]})"
        text = f"The worst {self.level} is {who}: AUROC {words_of(worst.part.found[0])}."
        p_value, difference = worst.holm.value, worst.difference[0].value
        if p_value is None or difference is None:
            return
        if p_value < 0.05 and difference < 0.0:
            yield Caveat("doubt", f"{text} It is harder than the rest also after Holm's correction for {tested}.")
        else:
            yield Caveat("ok", f"{text} Among {tested} it may be that by chance (p = {p_value:.2f} after Holm).")


def _corrected(tests: Sequence[MetricRecord]) -> list[MetricRecord]:
    """Return Holm's p-value of each test; those without a p-value do not count."""
    known = {index: record.value for index, record in enumerate(tests) if record.value is not None}
    adjusted = dict(zip(known, holm(list(known.values())).tolist(), strict=True))
    return [
        p_record(DIFFERENCE_P_HOLM, record.slice, adjusted.get(index), record.n, record.note)
        for index, record in enumerate(tests)
    ]
