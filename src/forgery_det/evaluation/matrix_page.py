"""A held-out matrix as records and as a page: what holding out costs in words, the heat map, the tables."""

from __future__ import annotations

from collections.abc import Iterator

from forgery_det.core.runs import versions
from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.compare_page import estimate_cell, p_text
from forgery_det.evaluation.compare_words import listed
from forgery_det.evaluation.matrix import short_name
from forgery_det.evaluation.matrix_values import Contrast, MatrixCell, MatrixFindings
from forgery_det.reporting.comparison_figures import Interval, difference_figure
from forgery_det.reporting.data import Caveat, Level, Verdict
from forgery_det.reporting.page import Page
from forgery_det.reporting.sections import Cell, HeatMapChart, Section, SectionTable
from forgery_det.reporting.style import Picture

WIDE_INTERVAL = 0.1
_MARKS = {"seen": "", "held out": " (held out)", "partly seen": " (partly seen)", None: ""}
_ORDER: dict[Level, int] = {"problem": 0, "doubt": 1, "ok": 2}


def matrix_records(findings: MatrixFindings) -> tuple[MetricRecord, ...]:
    """Return every number of a matrix; slices are `trained=ROW,tested=COLUMN` and, for losses, `versus=ROW` too."""
    return (*_cell_records(findings), *_contrast_records(findings))


def matrix_page(findings: MatrixFindings) -> Page:
    """Return what the page of a matrix shows."""
    plan = findings.plan
    sections = [_matrix_section(findings)]
    figures: dict[str, tuple[Picture, ...]] = {}
    if findings.contrasts:
        sections.append(_contrast_section(findings))
        picture = difference_figure("losses", [_interval(contrast) for contrast in findings.contrasts])
        figures["losses"] = () if picture is None else (picture,)
    facts = {
        "Detector": findings.detector,
        "Dataset": findings.dataset,
        "Trainings": str(len(plan.trainings())),
        "Level": f"{findings.config['alpha']:g} over all comparisons (Holm)",
    }
    title = f"{plan.kind}: {findings.detector} on {findings.dataset}"
    return Page(title, facts, _verdict(findings), tuple(sections), figures, findings.config, versions())


def _cell_records(findings: MatrixFindings) -> Iterator[MetricRecord]:
    for cell in findings.cells:
        found = cell.auroc
        note = "; ".join(filter(None, [cell.exposure or "", found.note]))
        key = f"trained={_plain(cell.row)},tested={_plain(cell.column)}"
        yield MetricRecord("auroc", key, found.value, found.ci_low, found.ci_high, found.n, True, note)


def _contrast_records(findings: MatrixFindings) -> Iterator[MetricRecord]:
    for contrast in findings.contrasts:
        found = contrast.difference
        names = (_plain(name) for name in (contrast.row, contrast.reference, contrast.column))
        key = "trained={},versus={},tested={}".format(*names)
        yield MetricRecord(
            "auroc_difference@delong", key, found.difference, found.ci_low, found.ci_high, found.n, True, found.note
        )
        for metric, value in (("p@delong", found.p_value), ("p_holm@delong", contrast.p_holm)):
            yield MetricRecord(metric, key, value, None, None, found.n, None, found.note)


def _plain(name: str) -> str:
    # In a slice `,` and `=` separate; a filter has both.
    return name.replace(",", "+").replace("=", ":")


def _verdict(findings: MatrixFindings) -> Verdict:
    caveats = sorted(_caveats(findings), key=lambda caveat: _ORDER[caveat.level])
    level: Level = min((caveat.level for caveat in caveats), key=_ORDER.__getitem__, default="ok")
    return Verdict(level, _headline(findings), tuple(caveats))


def _headline(findings: MatrixFindings) -> str:
    alpha = findings.config["alpha"]
    tested = [contrast for contrast in findings.contrasts if contrast.p_holm is not None]
    if not tested:
        return "No loss could be measured; the matrix below shows what could."
    lost = [c for c in tested if c.p_holm is not None and c.p_holm <= alpha and (c.difference.difference or 0.0) < 0.0]
    if not lost:
        return (
            f"None of {len(tested)} losses by not having seen what is tested is shown to be real; the intervals below "
            "say how large they may be."
        )
    worst = min(lost, key=lambda contrast: contrast.difference.difference or 0.0)
    return (
        f"Not having seen what is tested costs AUROC in {len(lost)} of {len(tested)} cases; the largest loss is "
        f"{-(worst.difference.difference or 0.0):.3f} ({_name(worst)})."
    )


def _caveats(findings: MatrixFindings) -> Iterator[Caveat]:
    plan = findings.plan
    for row in plan.rows:
        if row.impossible:
            yield Caveat("problem", f"“{row.name}” could not be trained: {row.impossible}.")
    if plan.left_out:
        named = listed([f"{name} ({count})" for name, count in list(plan.left_out.items())[:12]])
        more = f" and {len(plan.left_out) - 12} more" if len(plan.left_out) > 12 else ""
        yield Caveat("doubt", f"Too few test images for a column of their own: {named}{more}.")
    wide = [c for c in findings.contrasts if c.difference.ci_low is not None and _width(c) > WIDE_INTERVAL]
    if wide:
        yield Caveat(
            "doubt",
            f"{len(wide)} of {len(findings.contrasts)} losses have an interval wider than {WIDE_INTERVAL}: "
            "with this many test images a loss of that size cannot be told from luck.",
        )
    yield Caveat(
        "ok", "Each training is one run with one seed: what another seed would change is not in the intervals."
    )


def _width(contrast: Contrast) -> float:
    found = contrast.difference
    return 0.0 if found.ci_low is None or found.ci_high is None else found.ci_high - found.ci_low


def _name(contrast: Contrast) -> str:
    return f"{short_name(contrast.row)} on {short_name(contrast.column)}"


def _interval(contrast: Contrast) -> Interval:
    found = contrast.difference
    return Interval(_name(contrast), found.difference, found.ci_low, found.ci_high)


def _matrix_section(findings: MatrixFindings) -> Section:
    plan = findings.plan
    by_key = {(cell.row, cell.column): cell for cell in findings.cells}
    columns = [column.name for column in plan.columns]
    table = SectionTable(
        "AUROC of every training on every test",
        ("trained", *(short_name(name) for name in columns)),
        tuple((short_name(row.name), tuple(_cell(by_key[row.name, name]) for name in columns)) for row in plan.rows),
        "Each test sets its generated images against all real images of the test split. Intervals: 95 %, resampling "
        "source_ids. “Held out”: training saw none of the generators.",
    )
    chart = HeatMapChart(
        name="matrix",
        title=plan.kind,
        caption="AUROC of each training (rows) on each test (columns); 0.5 is guessing. A dash: not estimable.",
        row_label="trained",
        column_label="tested on",
        rows=tuple(short_name(row.name) for row in plan.rows),
        columns=tuple(short_name(name) for name in columns),
        values=tuple(tuple(by_key[row.name, name].auroc.value for name in columns) for row in plan.rows),
    )
    explanation = (
        "The same detector, trained again and again on other parts of the dataset, judged on the same test images. "
        "A row shows what one training can do; a column shows what it takes to recognise one kind of image."
    )
    return Section("matrix-section", plan.kind, explanation, (table,), (chart,))


def _cell(cell: MatrixCell) -> Cell:
    found = estimate_cell(cell.auroc, cell.auroc.value)
    return Cell(
        f"{found.text}{_MARKS[cell.exposure]}" if cell.auroc.value is not None else found.text,
        found.interval,
        found.note,
    )


def _contrast_section(findings: MatrixFindings) -> Section:
    rows = tuple(
        (
            _name(contrast),
            (
                Cell(short_name(contrast.reference)),
                estimate_cell(contrast.difference, contrast.difference.difference, signed=True),
                Cell(p_text(contrast.difference.p_value)),
                Cell(p_text(contrast.p_holm)),
                Cell(str(contrast.difference.n)),
            ),
        )
        for contrast in findings.contrasts
    )
    table = SectionTable(
        "Losses",
        ("training and test", "against", "AUROC difference", "p (DeLong)", "adjusted p", "n"),
        rows,
        "Negative: worse than the training that saw these generators, on the very same images.",
    )
    return Section(
        "losses",
        "What not having seen it costs",
        "Each training is held against the one that saw the tested generators. Paired DeLong over source_ids; adjusted "
        "p-values are Holm's over all rows of the table.",
        (table,),
    )
