"""Tables as they are shown: the records of one slice group pivoted to rows of cells, notes turned into footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forgery_det.core.types import MetricRecord
from forgery_det.reporting import sections
from forgery_det.reporting.data import Exposure, ReportData, SliceGroup
from forgery_det.reporting.sections import Section, SectionTable
from forgery_det.reporting.text import number, with_interval

_EXPOSURE_WORD: Mapping[str, str] = {"all": "", "seen": "seen", "held_out": "held out", "real": "real"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table; where there is none, `value` says so in words and the footnote says why."""

    value: str
    interval: str
    missing: bool
    footnote: int | None

    def text(self) -> str:
        """Return the cell as one line of plain text."""
        mark = f" ({self.footnote})" if self.footnote is not None else ""
        return f"{self.value} [{self.interval}]{mark}" if self.interval else f"{self.value}{mark}"


@dataclass(frozen=True, slots=True)
class Row:
    """One slice of a table."""

    name: str
    exposure: Exposure
    exposure_word: str
    n_real: int
    n_generated: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One slice group as it is shown."""

    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SectionTableView:
    """A table of a section, its notes turned into footnotes."""

    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    footnotes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SectionView:
    """A protocol's section as it is shown; `figures` are the names of its charts."""

    name: str
    title: str
    explanation: str
    tables: tuple[SectionTableView, ...]
    figures: tuple[str, ...]


def section_views(shown: Sequence[Section]) -> tuple[SectionView, ...]:
    """Return sections as they are shown."""
    return tuple(
        SectionView(
            section.name,
            section.title,
            section.explanation,
            tuple(_section_table(table) for table in section.tables),
            tuple(chart.name for chart in section.charts),
        )
        for section in shown
    )


def _section_table(table: SectionTable) -> SectionTableView:
    footnotes: list[str] = []
    rows = tuple((name, tuple(_section_cell(cell, footnotes) for cell in cells)) for name, cells in table.rows)
    return SectionTableView(table.title, table.explanation, table.columns, rows, tuple(footnotes))


def _section_cell(cell: sections.Cell, footnotes: list[str]) -> Cell:
    return Cell(cell.text, cell.interval, cell.text == sections.NOT_ESTIMABLE, _footnote(cell.note, footnotes))


def _footnote(note: str, footnotes: list[str]) -> int | None:
    """Return the number of a note; one reason often holds for a whole column, and is written once."""
    if not note:
        return None
    if note not in footnotes:
        footnotes.append(note)
    return footnotes.index(note) + 1


def tables(data: ReportData) -> tuple[Table, ...]:
    """Return the tables of a report, groups without a slice left out."""
    records = {(record.metric, record.slice): record for record in data.records}
    return tuple(_table(group, records, data.metric_titles) for group in data.groups if group.slices)


def _table(group: SliceGroup, records: Mapping[tuple[str, str], MetricRecord], titles: Mapping[str, str]) -> Table:
    footnotes: list[str] = []
    rows = []
    for info in group.slices:
        cells = tuple(_cell(records.get((metric, info.key)), footnotes) for metric in group.metrics)
        word = _EXPOSURE_WORD[info.exposure]
        rows.append(Row(info.name, info.exposure, word, info.n_real, info.n_generated, cells))
    columns = tuple(titles.get(metric, metric) for metric in group.metrics)
    return Table(group.title, group.explanation, columns, tuple(rows), tuple(footnotes))


def _cell(record: MetricRecord | None, footnotes: list[str]) -> Cell:
    if record is None:
        return Cell("not computed", "", True, None)
    footnote = _footnote(record.note, footnotes)
    if record.value is None:
        return Cell("not estimable" if footnote else with_interval(record), "", True, footnote)
    no_interval = record.ci_low is None or record.ci_high is None
    interval = "" if no_interval else f"{number(record.ci_low)}, {number(record.ci_high)}"
    return Cell(number(record.value), interval, False, footnote)
