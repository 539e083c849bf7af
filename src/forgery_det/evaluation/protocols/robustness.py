"""Does the detector still work after the picture was saved, resized, cropped, recoloured or photographed again?

Real and generated images go through the same perturbations, at named severities (`transforms.perturb`); thresholds
stay those of *clean* `val` images, because whoever deploys a detector does not know what happened to a picture. With
`A_s` the AUROC at severity `s` of a perturbation, for severities `s_1 < ... < s_K` that were scored:

    area under the robustness curve = sum_k (s_(k+1) - s_k) (A_(s_k) + A_(s_(k+1))) / 2 / (s_K - s_1)

The clean value is not part of it; with one severity it is `A_s`. Severities are ordinal, so an area says how one
detector compares with another on the same severities, not how much of anything is lost per unit. Its interval is
DeLong's for a weighted sum (`metrics.weighted_auroc`).

How conditions are set against clean stands in `robustness_results`. The worst condition is picked after looking, so
its value leans low.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.cells import p_cell, record_cell, words_of
from forgery_det.evaluation.protocols.copies import (
    FAMILIES,
    NO_COPIES,
    by_perturbation,
    check_points,
    family_title,
    paired_copies,
)
from forgery_det.evaluation.protocols.robustness_results import (
    WORST,
    Result,
    RobustnessResults,
    Summary,
    robustness_results,
)
from forgery_det.evaluation.slice_metrics import METRIC_TITLES
from forgery_det.reporting.data import Caveat
from forgery_det.reporting.sections import (
    NOT_ESTIMABLE,
    Cell,
    CurveChart,
    HeatMapChart,
    Section,
    SectionTable,
    Series,
)

MAX_BANDS = 3
"""Curves in one chart above which intervals are left to the table."""

_TITLE = "After the picture was changed"
_ALPHA = 0.05


def robustness(
    context: ProtocolContext, *, operating_points: Sequence[str] = ("fpr_5pct", "fpr_1pct")
) -> ProtocolResult:
    """Judge every perturbation and severity that was scored.

    Args:
        context: Predictions and thresholds.
        operating_points: Clean thresholds at which TPR and FPR are given; the first one is shown in the tables.

    Raises:
        ConfigError: Unknown operating point, or none.
    """
    points = check_points(operating_points, context, "robustness")
    groups = by_perturbation(paired_copies(context))
    if not groups:
        return _nothing()
    found = robustness_results(groups, context, points)
    section = Section(
        "robustness",
        _TITLE,
        "Real and generated images alike were saved again, resized, blurred and so on, at named severities; thresholds "
        "stay those of clean val images. A curve that falls says what the detector's evidence does not survive; an FPR "
        "that rises says who pays for it. Emulated chains are stand-ins: no platform was measured.",
        (_summary_table(found, points[0]), *_condition_tables(found, points[0])),
        (_heat_map(found.summaries), *_curves(found)),
    )
    return ProtocolResult(found.records(), section, tuple(_caveats(found, points[0])))


def _nothing() -> ProtocolResult:
    row = ("all", (Cell(NOT_ESTIMABLE, note=NO_COPIES),))
    table = SectionTable("Perturbations", ("condition", "AUROC"), (row,))
    record = MetricRecord(WORST, "overall", None, None, None, 0, True, NO_COPIES)
    return ProtocolResult((record,), Section("robustness", _TITLE, "No perturbed copies were scored.", (table,)))


def _summary_table(found: RobustnessResults, point: str) -> SectionTable:
    rows = [("as stored", (Cell("-"), record_cell(found.clean[0]), Cell("-"), Cell("-"), Cell("-")))]
    for part in found.summaries:
        where = "-" if part.lowest is None else part.lowest.copies.name.removeprefix(f"{part.name} ")
        cells = (
            Cell(str(len(part.results))),
            record_cell(part.area, with_note=False),
            record_cell(part.area_difference, with_note=False),
            record_cell(part.worst, with_note=False),
            Cell(where),
        )
        rows.append((part.name, cells))
    return SectionTable(
        "By perturbation",
        ("perturbation", "severities", "area (AUROC)", "area - clean", "worst AUROC", "at severity"),
        tuple(rows),
        "Area: mean AUROC over the severities that were scored (trapezoid on the severity number, clean not counted). "
        "The worst severity is picked after looking, so its value leans low. "
        f"Rates in the tables below are at the threshold “{point}” of clean images.",
    )


def _condition_tables(found: RobustnessResults, point: str) -> Iterator[SectionTable]:
    rates = tuple(METRIC_TITLES.get(f"{rate}@{point}", f"{rate.upper()} at {point}") for rate in ("tpr", "fpr"))
    none = Cell("-")
    tpr, fpr = (record_cell(record) for record in found.clean[1:3])
    clean = (record_cell(found.clean[0]), none, none, tpr, none, fpr, none)
    for family, words in FAMILIES.items():
        rows = [
            (
                result.copies.name,
                (
                    record_cell(result.auroc),
                    record_cell(result.difference),
                    Cell("-" if result.p_holm.value is None else p_cell(result.p_holm).text),
                    record_cell(result.rates[0][0]),
                    record_cell(result.changes[0].value, with_note=False),
                    record_cell(result.rates[0][1]),
                    record_cell(result.changes[1].value, with_note=False),
                ),
            )
            for result in found.results
            if result.copies.family == family
        ]
        if rows:
            yield SectionTable(
                f"By severity: {words}",
                ("condition", "AUROC", "- clean", "p (Holm)", rates[0], "- clean", rates[1], "- clean"),
                (("as stored", clean), *rows),
                "“- clean” is the difference to the same images as stored; p is that of the AUROC's, adjusted over all "
                "conditions of this report.",
            )


def _heat_map(summaries: Sequence[Summary]) -> HeatMapChart:
    last = max(result.copies.condition.severity for part in summaries for result in part.results)
    values = []
    for part in summaries:
        at = {result.copies.condition.severity: result.auroc.value for result in part.results}
        values.append(tuple(at.get(severity) for severity in range(1, last + 1)))
    return HeatMapChart(
        "robustness_heat_map",
        "AUROC by perturbation and severity",
        "Darker is better. A severity means what its perturbation's table says; “-” was not scored.",
        "perturbation",
        "severity",
        tuple(part.name for part in summaries),
        tuple(str(severity) for severity in range(1, last + 1)),
        tuple(values),
    )


def _curves(found: RobustnessResults) -> Iterator[CurveChart]:
    for family in FAMILIES:
        parts = [part for part in found.summaries if part.family == family]
        if not parts:
            continue
        last = max(result.copies.condition.severity for part in parts for result in part.results)
        yield CurveChart(
            f"robustness_{family}",
            f"AUROC by severity: {family_title(family, [part.name for part in parts])}",
            "AUROC of the perturbed images, both classes perturbed alike; 0 is the image as stored. Dotted: chance.",
            "severity",
            "AUROC",
            tuple(_series(part, found.clean[0], len(parts) <= MAX_BANDS) for part in parts),
            ((0.0, "clean"), *((float(severity), str(severity)) for severity in range(1, last + 1))),
            reference_y=0.5,
        )


def _series(part: Summary, clean: MetricRecord, band: bool) -> Series:
    records = (clean, *(result.auroc for result in part.results))
    return Series(
        part.name,
        (0.0, *(float(result.copies.condition.severity) for result in part.results)),
        tuple(record.value for record in records),
        tuple(record.ci_low for record in records) if band else (),
        tuple(record.ci_high for record in records) if band else (),
    )


def _caveats(found: RobustnessResults, point: str) -> Iterator[Caveat]:
    fallen = [result for result in found.results if _falls(result)]
    if fallen:
        deepest = min(fallen, key=lambda result: result.difference.value or 0.0)
        yield Caveat(
            "doubt",
            f"The ranking suffers under {len(fallen)} of {len(found.results)} perturbations and severities "
            f"(Holm-adjusted p < {_ALPHA}), most under {deepest.copies.name}: AUROC - clean = "
            f"{words_of(deepest.difference)}.",
        )
    # A detector can keep its ranking while all its logits slide below, or above, the threshold.
    for rate, sign, words in ((0, -1, "Fewer generated"), (1, 1, "More real")):
        moved = [result for result in found.results if result.changes[rate].is_real(sign)]
        if moved:
            most = max(moved, key=lambda result: sign * (result.changes[rate].value.value or 0.0))
            before, after = found.clean[1 + rate].value, most.rates[0][rate].value
            yield Caveat(
                "doubt",
                f"{words} images are called generated, at the clean threshold “{point}”, under {len(moved)} of "
                f"{len(found.results)} perturbations and severities (Holm-adjusted p < {_ALPHA}), most under "
                f"{most.copies.name}: {before:.1%} as stored, {after:.1%} there.",
            )


def _falls(result: Result) -> bool:
    p_value, difference = result.p_holm.value, result.difference.value
    return p_value is not None and p_value < _ALPHA and difference is not None and difference < 0
