"""Is a re-saved photograph called generated? Real images only, each beside itself as it is stored.

    change = FPR of the copies - FPR of the same images as stored          at one clean threshold

A detector that has learnt "never compressed" or "compressed once" instead of "generated" turns on photographs as soon
as somebody saves them again, and photographs are what it meets most. How a change is tested stands in `rate_change`.

`paradigm = reconstruction` rows of the manifest are photographs that went through an autoencoder: nothing in them was
invented, but every pixel was made by a decoder. The manifest labels them generated; whether a detector should call them
so is the user's question, so here stands only how often it does, and beside it how often it calls the original so where
`content_id` names one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import polars as pl

from forgery_det.core.types import REAL, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.cells import p_cell, record_cell, words_of
from forgery_det.evaluation.protocols.copies import (
    FAMILIES,
    Copies,
    by_perturbation,
    check_names,
    check_points,
    family_title,
    paired_copies,
)
from forgery_det.evaluation.protocols.false_alarm import WANTED, fpr_estimate
from forgery_det.evaluation.protocols.rate_change import RateChange, adjusted, rate_change
from forgery_det.evaluation.slice_metrics import METRIC_TITLES, Values, metric_record
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import NOT_ESTIMABLE, Cell, CurveChart, Section, SectionTable, Series

CLEAN_SLICE = "label=real,perturbation=none,severity=0"
_TITLE = "Real pictures that were saved again"


def contamination(
    context: ProtocolContext,
    *,
    operating_points: Sequence[str] = ("fpr_5pct", "fpr_1pct"),
    families: Sequence[str] = ("codec", "chain"),
    reconstructions: bool = True,
) -> ProtocolResult:
    """Give the FPR of real images after each codec and chain that was scored, and its change.

    Args:
        context: Predictions and thresholds.
        operating_points: Clean thresholds; the first one is drawn.
        families: Families of perturbations that count as handling a photograph.
        reconstructions: Also look at `paradigm = reconstruction`, where there are such rows.

    Raises:
        ConfigError: Unknown operating point or family, or no operating point.
    """
    points = check_points(operating_points, context, "contamination")
    check_names(families, FAMILIES, "families", "contamination")
    groups = by_perturbation([part for part in paired_copies(context, REAL) if part.family in families])
    parts = [part for group in groups.values() for part in group]
    clean = tuple(_clean_record(point, context) for point in points)
    results = [_judge(parts, point, context) for point in points]
    rebuilt = _reconstructed(context, points) if reconstructions else []
    tables = [_table(point, before, found) for point, before, found in zip(points, clean, results, strict=True)]
    section = Section(
        "contamination",
        _TITLE,
        "Real images only. Each was saved again, or sent through an emulated chain, and is judged at the threshold of "
        "clean images: is a photograph called generated because of what somebody did to the file?",
        (*(tables if parts else [_nothing(families)]), *_reconstruction_tables(rebuilt)),
        tuple(_curves(groups, results[0], clean[0], points[0])),
    )
    judged = [record for found in results for result in found for record in result.records()]
    records = (*clean, *judged, *(record for row in rebuilt for record in row.records))
    return ProtocolResult(records, section, tuple(_caveats(points, clean, results)))


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """One condition at one operating point."""

    copies: Copies
    fpr: MetricRecord
    change: RateChange

    def records(self) -> tuple[MetricRecord, ...]:
        return self.fpr, *self.change.records()


def _clean_record(point: str, context: ProtocolContext) -> MetricRecord:
    values = Values.of(context.judged().filter(pl.col("label") == REAL))
    return metric_record(f"fpr@{point}", CLEAN_SLICE, fpr_estimate(values, point, context))


def _judge(parts: Sequence[Copies], point: str, context: ProtocolContext) -> list[_Result]:
    keys = [f"label=real,{part.condition.slice}" for part in parts]
    changes = adjusted(
        [
            rate_change("fpr", key, part.values, part.clean_N, point, context)
            for key, part in zip(keys, parts, strict=True)
        ]
    )
    results = []
    for key, part, change in zip(keys, parts, changes, strict=True):
        fpr = metric_record(f"fpr@{point}", key, fpr_estimate(part.values, point, context))
        results.append(_Result(part, replace(fpr, note="; ".join(filter(None, [fpr.note, part.note]))), change))
    return results


@dataclass(frozen=True, slots=True, eq=False)
class _Rebuilt:
    """Reconstructions by one autoencoder: share called generated, and the change to the originals, at each point."""

    name: str
    records: tuple[MetricRecord, ...]


def _reconstructed(context: ProtocolContext, points: Sequence[str]) -> list[_Rebuilt]:
    judged = context.judged()
    rebuilt = judged.filter(pl.col("paradigm") == "reconstruction")
    originals = judged.filter((pl.col("label") == REAL) & pl.col("content_id").is_not_null())
    originals = originals.unique("content_id", keep="none").select("content_id", pl.col("logit").alias("original"))
    rows = []
    for name in rebuilt["generator"].unique().sort().to_list():
        mine = rebuilt.filter(pl.col("generator") == name)
        pairs = mine.join(originals, on="content_id", how="inner", maintain_order="left")
        records = [record for point in points for record in _rebuilt_records(name, mine, pairs, point, context)]
        rows.append(_Rebuilt(name, tuple(records)))
    return rows


def _rebuilt_records(
    name: str, mine: pl.DataFrame, pairs: pl.DataFrame, point: str, context: ProtocolContext
) -> Iterator[MetricRecord]:
    key = f"paradigm=reconstruction,generator={name}"
    found = fpr_estimate(_as_real(mine), point, context)
    yield MetricRecord(
        f"called_generated@{point}", key, found.value, found.ci_low, found.ci_high, found.n, None, found.note
    )
    change = rate_change("fpr", key, _as_real(pairs), pairs["original"].to_numpy(), point, context).value
    paired = f"{pairs.height} of {mine.height} have their original here"
    note = "; ".join(filter(None, [change.note, paired]))
    yield replace(change, metric=f"called_generated_difference@{point}", note=note)


def _as_real(table: pl.DataFrame) -> Values:
    """Return values that are counted as an FPR is: the share of all of them at or above the threshold."""
    return Values.of(table.with_columns(pl.lit(REAL, dtype=table.schema["label"]).alias("label")))


def _nothing(families: Sequence[str]) -> SectionTable:
    why = (
        f"not estimable (n = 0: no copies of the families {', '.join(families)} were scored; name some under "
        "`perturbations` in the evaluate configuration)"
    )
    row = ("all", (Cell(NOT_ESTIMABLE, note=why),))
    return SectionTable("Codecs and chains", ("condition", "FPR"), (row,))


def _title(point: str) -> str:
    return METRIC_TITLES.get(f"fpr@{point}", f"FPR at {point}")


def _table(point: str, clean: MetricRecord, results: Sequence[_Result]) -> SectionTable:
    rows = [("as stored", (record_cell(clean, with_note=False), Cell("-"), Cell("-"), Cell("-")))]
    for result in results:
        p_holm = Cell("-" if result.change.p_holm.value is None else p_cell(result.change.p_holm).text)
        cells = (record_cell(result.fpr, with_note=False), record_cell(result.change.value, with_note=False), p_holm)
        rows.append((result.copies.name, (*cells, Cell(result.change.moved or "-"))))
    return SectionTable(
        f"{_title(point)}, after a save",
        ("condition", "FPR", "FPR - clean", "p (Holm)", "images that moved"),
        tuple(rows),
        "Differences are on the same images; p is McNemar's, with clusters, adjusted over this table's conditions.",
    )


def _reconstruction_tables(rebuilt: Sequence[_Rebuilt]) -> Iterator[SectionTable]:
    if not rebuilt:
        return
    columns = tuple(_title(record.metric.partition("@")[2]) for record in rebuilt[0].records[::2])
    heads = tuple(head for title in columns for head in (f"called generated ({title})", "- original"))
    rows = tuple((row.name, tuple(record_cell(record) for record in row.records)) for row in rebuilt)
    yield SectionTable(
        "Photographs sent through an autoencoder",
        ("autoencoder", *heads),
        rows,
        "Nothing was invented in these pictures, but a decoder made every pixel. The manifest labels them generated.",
    )


def _curves(
    groups: dict[str, tuple[Copies, ...]], results: Sequence[_Result], clean: MetricRecord, point: str
) -> Iterator[CurveChart]:
    for family in FAMILIES:
        names = [name for name, parts in groups.items() if parts[0].family == family]
        if not names:
            continue
        lines = []
        for name in names:
            records = [clean, *(r.fpr for r in results if r.copies.condition.perturbation == name)]
            places = (0.0, *(float(part.condition.severity) for part in groups[name]))
            low, high = tuple(r.ci_low for r in records), tuple(r.ci_high for r in records)
            lines.append(Series(name, places, tuple(r.value for r in records), low, high))
        last = int(max(line.x[-1] for line in lines))
        yield CurveChart(
            f"contamination_{family}",
            f"{_title(point)}: {family_title(family, names)}",
            "Share of real images called generated at the clean threshold; 0 is the image as stored. Dotted: the rate "
            "that was wanted.",
            "severity",
            "FPR",
            tuple(lines),
            ((0.0, "clean"), *((float(severity), str(severity)) for severity in range(1, last + 1))),
            reference_y=WANTED.get(point),
        )


def _caveats(
    points: Sequence[str], clean: Sequence[MetricRecord], results: Sequence[Sequence[_Result]]
) -> Iterator[Caveat]:
    for point, before, found in zip(points, clean, results, strict=True):
        risen = [result for result in found if result.change.is_real(1)]
        if risen and before.value is not None:
            worst = max(risen, key=lambda result: result.change.value.value or 0.0)
            yield Caveat(
                "doubt",
                f"Real images are called generated more often after {len(risen)} of {len(found)} kinds of saving "
                f"(threshold “{point}”, Holm-adjusted p < 0.05): FPR {before.value:.1%} as stored, "
                f"{worst.fpr.value:.1%} after {worst.copies.name} (change {words_of(worst.change.value)}).",
            )
