"""A section of a report that a protocol fills: words, tables, charts. Values only; `reporting` lays them out.

Every protocol (prompt length, robustness, ...) shows its outcome through the same few shapes, so a new one needs no
template: a table of texts, a chart of curves with intervals, a heat map.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_ESTIMABLE = "not estimable"
"""Text of a cell without a value; its note says why."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a section's table.

    Args:
        text: What it says, for instance `0.93`; untrusted, escaped where it is written.
        interval: Shown small below the text, for instance `0.88, 0.97`.
        note: Why it is not estimable or what to know; shown as a footnote.
    """

    text: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class SectionTable:
    """A table: the first column names the rows.

    Args:
        title: Above the table.
        columns: Heads of all columns, that of the first included.
        rows: Row name and cells, one cell for each further column.
        explanation: One or two sentences.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a curve chart, with an interval band where `low` and `high` are given.

    Args:
        name: In the legend.
        x: Ascending positions.
        y: Values; None breaks the line.
        low: Lower ends of the intervals, empty without.
        high: Upper ends of the intervals, empty without.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class CurveChart:
    """Curves over a common axis.

    Args:
        name: File stem of the figure, unique in the report.
        title: Above the figure.
        caption: What is drawn, in words.
        x_label: With its unit.
        y_label: With its unit.
        series: The lines.
        x_ticks: Positions and names of ticks; empty for automatic ones.
        log_x: Base-2 logarithmic x axis.
        reference_y: A dashed horizontal line, for instance chance; None without.
        marks_x: Vertical lines and their names, for instance a limit.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_ticks: tuple[tuple[float, str], ...] = ()
    log_x: bool = False
    reference_y: float | None = None
    marks_x: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HeatMapChart:
    """A matrix of values, for instance trained on x tested on.

    Args:
        name: File stem of the figure, unique in the report.
        title: Above the figure.
        caption: What is drawn, in words.
        row_label: What rows are.
        column_label: What columns are.
        rows: Names of the rows.
        columns: Names of the columns.
        values: One tuple a row; None where there is no value.
        low: Lower end of the colour scale.
        high: Upper end of the colour scale.
    """

    name: str
    title: str
    caption: str
    row_label: str
    column_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    low: float = 0.5
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Section:
    """What one protocol shows.

    Args:
        name: Registry name of the protocol; the anchor in the page.
        title: Head of the section.
        explanation: What was asked and how to read the answer, two to four sentences.
        tables: In order.
        charts: In order.
    """

    name: str
    title: str
    explanation: str
    tables: tuple[SectionTable, ...] = ()
    charts: tuple[CurveChart | HeatMapChart, ...] = ()
