"""Does the detector hold on generators that were released later? Results by the generators' release dates.

A detector is trained on what exists and meets what comes next. So results are given for each period of release, and
the generators released after the last one seen in training are set against those up to it (as AI-GenBench does:
Pellegrini et al. 2025, arXiv 2504.20865). A generator may be hard because it is new, or only because it was not in
training, so the generators up to the cutoff that were held out stand in a row of their own.

A pretrained backbone may have seen generated images on the web, too: with `backbone_cutoff`, the generators released
after the backbone's pre-training are judged apart.

Every AUROC is against all real images of the split; differences are `metrics.group_difference`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import GENERATED, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.cells import difference_records, p_cell, record_cell, words_of
from forgery_det.evaluation.protocols.groups import GroupPart, compare_groups
from forgery_det.metrics.comparison import Comparison
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import Cell, CurveChart, Section, SectionTable, Series

_MONTHS = {"year": 12, "half_year": 6, "quarter": 3}
_LETTER = {"year": "", "half_year": "-H", "quarter": "-Q"}


def temporal(
    context: ProtocolContext,
    *,
    period: str = "half_year",
    cutoff: str | None = None,
    backbone_cutoff: str | None = None,
) -> ProtocolResult:
    """Give results by release period, and before and after the end of the detector's and the backbone's knowledge.

    Args:
        context: Predictions and what the dataset knows of its generators.
        period: `year`, `half_year` or `quarter`.
        cutoff: Last release date of the generators seen in training, `YYYY-MM-DD`; by default it is read off the
            release dates of the seen generators in the manifest.
        backbone_cutoff: Last date of the backbone's pre-training data; without it, that question is not asked.

    Raises:
        ConfigError: Unknown period, or a text that is no date.
    """
    if period not in _MONTHS:
        raise ConfigError(f"Unknown period {period!r} (temporal): {did_you_mean(str(period), _MONTHS)}")
    given = _date(cutoff, "cutoff")
    backbone = _date(backbone_cutoff, "backbone_cutoff")
    end = _Cutoff(given, "given") if given else _seen_until(context)
    periods = _Periods.of(context, period)
    tables, records, caveats = [periods.table()], list(periods.records()), []
    for split in (_trained(context, end), _pretrained(context, backbone) if backbone else None):
        if split is not None:
            tables.append(split.table())
            records += split.records()
            caveats += split.caveats()
    section = Section(
        "temporal",
        "Generators by release date",
        "A detector is trained on what exists and used on what comes next. Each row sets the generated images of some "
        "generators against all real images; later periods may differ in subject and prompt as well as in date.",
        tuple(tables),
        (periods.chart(end.last),),
    )
    return ProtocolResult(tuple(records), section, tuple(caveats))


@dataclass(frozen=True, slots=True)
class _Cutoff:
    """The last release date of what training saw, and how that is known; None with the reason when it is not."""

    last: date | None
    how: str


def _date(text: str | None, option: str) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Expected `{option}` as YYYY-MM-DD, got {text!r} (temporal).") from error


def _seen_until(context: ProtocolContext) -> _Cutoff:
    if context.seen is None:
        return _Cutoff(None, "nobody recorded which generators were seen in training; give `cutoff`")
    known = context.generators().filter(pl.col("generator").is_in(sorted(context.seen)))
    dated = known.filter(pl.col("release_date").is_not_null())
    if not dated.height:
        return _Cutoff(None, "no generator seen in training has a release date in the manifest; give `cutoff`")
    last = dated.sort("release_date", "generator").row(-1, named=True)
    how = f"the latest release date among the generators seen in training, {last['generator']}"
    undated = len(context.seen) - dated.height
    return _Cutoff(last["release_date"], how + (f"; {undated} seen generators have no date here" if undated else ""))


def period_name(day: date, period: str) -> str:
    """Return the period a date lies in.

    Example:
        >>> period_name(date(2025, 8, 4), "half_year"), period_name(date(2025, 8, 4), "year")
        ('2025-H2', '2025')
    """
    number = (day.month - 1) // _MONTHS[period] + 1
    return f"{day.year}{_LETTER[period]}{number if _LETTER[period] else ''}"


_HEADS = ("generators", "n gen.", "AUROC", "TPR at 5 % FPR")


@dataclass(frozen=True, slots=True)
class _Periods:
    """Results by period of release, undated generators last."""

    parts: tuple[GroupPart, ...]
    middle: tuple[float, ...]
    undated: tuple[str, ...]

    @classmethod
    def of(cls, context: ProtocolContext, period: str) -> _Periods:
        generated = context.judged().filter(pl.col("label") == GENERATED)
        days = sorted(generated["release_date"].drop_nulls().unique().to_list())
        members: dict[str, list[date]] = {}
        for day in days:
            members.setdefault(period_name(day, period), []).append(day)
        parts = [
            GroupPart.of(context, f"release_period={name}", name, pl.col("release_date").is_in(inside))
            for name, inside in members.items()
        ]
        undated = generated.filter(pl.col("release_date").is_null())["generator"].unique().sort().to_list()
        if undated:
            parts.append(GroupPart.of(context, "release_period=unknown", "no date", pl.col("release_date").is_null()))
        middle = tuple(_middle(inside[0], period) for inside in members.values())
        return cls(tuple(parts), middle, tuple(undated))

    def records(self) -> tuple[MetricRecord, ...]:
        return tuple(record for part in self.parts for record in part.found)

    def table(self) -> SectionTable:
        explanation = "The release date is the generator's, as the dataset gives it."
        if self.undated:
            explanation += f" Without a date, in a row of their own: {', '.join(self.undated)}."
        return SectionTable(
            "By period of release", ("released", *_HEADS), tuple(part.row() for part in self.parts), explanation
        )

    def chart(self, cutoff: date | None) -> CurveChart:
        dated = self.parts[: len(self.middle)]
        auroc = [part.found[0] for part in dated]
        series = Series(
            "AUROC", self.middle, tuple(r.value for r in auroc), tuple(r.ci_low for r in auroc),
            tuple(r.ci_high for r in auroc),
        )  # fmt: skip
        caption = "AUROC of the generators released in each period, with its interval. Dotted: chance."
        marks = ((_year(cutoff), f"last generator seen in training, {cutoff}"),) if cutoff else ()
        return CurveChart(
            "temporal_auroc", "AUROC by release date", caption, "release of the generator", "AUROC", (series,),
            tuple((x, part.name) for x, part in zip(self.middle, dated, strict=True)), reference_y=0.5, marks_x=marks,
        )  # fmt: skip


def _year(day: date) -> float:
    return day.year + (day.timetuple().tm_yday - 1) / 365.25


def _middle(day: date, period: str) -> float:
    number = (day.month - 1) // _MONTHS[period]
    return day.year + (number + 0.5) * _MONTHS[period] / 12.0


_Pair = tuple[MetricRecord, MetricRecord]


@dataclass(frozen=True, slots=True)
class _Split:
    """Generators up to a date against those after it.

    Args:
        title: Above the table.
        explanation: Below the title.
        rows: Groups of generators, each with what the later ones differ by from it.
        main: The difference of all later generators from all earlier ones.
        warning: What the report's summary says of `main`.
    """

    title: str
    explanation: str
    rows: tuple[tuple[GroupPart, _Pair | None], ...]
    main: _Pair
    warning: Callable[[MetricRecord], str]

    def records(self) -> list[MetricRecord]:
        if not self.rows:
            return list(self.main)
        found = [record for part, _ in self.rows for record in part.found]
        return found + [record for _, pair in self.rows if pair for record in pair]

    def table(self) -> SectionTable:
        rows = []
        for part, pair in self.rows:
            name, cells = part.row()
            tests = (record_cell(pair[0]), p_cell(pair[1])) if pair else (Cell(""), Cell(""))
            rows.append((name, (*cells, *tests)))
        if not rows:
            rows = [("no date", (Cell("0"), Cell("0"), *[record_cell(self.main[0])] * 4))]
        columns = ("released", *_HEADS, "AUROC after, less this", "p")
        return SectionTable(self.title, columns, tuple(rows), self.explanation)

    def caveats(self) -> list[Caveat]:
        difference = self.main[0]
        if difference.value is None or difference.ci_high is None:
            return []
        return [Caveat("doubt" if difference.ci_high < 0.0 else "ok", self.warning(difference))]


def _split(
    context: ProtocolContext, key: str, last: date, title: str, explanation: str, warning: Callable[[MetricRecord], str]
) -> _Split:
    until, after = pl.col("release_date") <= last, pl.col("release_date") > last
    judged = context.judged()
    main = difference_records(f"{key}=after-until", compare_groups(judged, after, until, context))
    rows: list[tuple[GroupPart, _Pair | None]] = [
        (GroupPart.of(context, f"{key}=until", f"until {last}", until), main),
        (GroupPart.of(context, f"{key}=after", f"after {last}", after), None),
    ]
    if key == "cutoff" and context.seen is not None:
        held_out = until & ~pl.col("generator").is_in(sorted(context.seen))
        part = GroupPart.of(context, f"{key}=until,exposure=held_out", f"until {last}, held out", held_out)
        pair_key = f"{key}=after-until,exposure=held_out"
        rows.insert(1, (part, difference_records(pair_key, compare_groups(judged, after, held_out, context))))
    return _Split(title, explanation, tuple(rows), main, warning)


def _trained(context: ProtocolContext, end: _Cutoff) -> _Split:
    title = "Before and after the end of training data"
    if end.last is None:
        missing = Comparison.missing(0, f"not estimable (no cutoff: {end.how})")
        return _Split(title, "", (), difference_records("cutoff=after-until", missing), words_of)

    def warning(difference: MetricRecord) -> str:
        if difference.ci_high is not None and difference.ci_high < 0.0:
            return (
                f"Generators released after {end.last} are harder: their AUROC differs by {words_of(difference)} from "
                "that of earlier ones."
            )
        return (
            f"Generators released after {end.last} are not shown to be harder: AUROC differs by {words_of(difference)}."
        )

    explanation = (
        f"The date is {end.how}. “Held out” were released until then and yet not in training: what separates them from "
        "the row above is novelty, what separates them from the row below is time."
    )
    return _split(context, "cutoff", end.last, title, explanation, warning)


def _pretrained(context: ProtocolContext, last: date) -> _Split:
    def warning(difference: MetricRecord) -> str:
        return (
            f"On generators released after the backbone's pre-training ({last}) the AUROC differs by "
            f"{words_of(difference)}."
        )

    explanation = "A backbone may have met generated images in its own training data; after this date it cannot have."
    return _split(context, "backbone", last, "After the backbone's pre-training", explanation, warning)
