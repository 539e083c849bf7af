"""Charts of the protocols' sections: curves with interval bands, and heat maps, in the style of every other figure.

What is drawn is told apart by marker and dash as well as by colour (Okabe and Ito 2008), and the legend stands below
the axes, where it can cover nothing. A value without neighbours is still a marker; a value without an interval has no
band, which is not the same as a narrow one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import NullLocator, ScalarFormatter

from forgery_det.reporting.sections import CurveChart, HeatMapChart, Section, Series
from forgery_det.reporting.style import INK, Picture, draw

COLOURS = ("#2a7fbf", "#d8631b", "#12956b", "#b8509a", "#a8811a", "#6a6f7a")
_MARKERS = ("o", "s", "D", "^", "v", "P")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.6, 1.4)),
    (0, (6, 1.6, 1.6, 1.6)),
    (0, (9, 2)),
    (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)),
)

MAX_SERIES = 12
"""More lines than this cannot be told apart; the table has them all."""

MAX_CELL_TEXTS = 12
"""A heat map with more columns than this has no numbers in its cells."""

MAX_CELLS = 60
"""Rows or columns above which a heat map is not drawn."""

_MARKED_POINTS = 12
# Characters that fit below an axis, and below one that has row names to its left.
_ROOM_OF_TICKS, _ROOM_BESIDE_NAMES = 52, 36
_MAX_BANDS = 2
_DODGE = 0.009
_LIGHT, _DARK = "#e8eef4", "#12456e"
_SCALE = LinearSegmentedColormap.from_list("forgery_det", [_LIGHT, "#7fb2d8", "#2a7fbf", _DARK])


def chart(values: CurveChart | HeatMapChart) -> Picture | None:
    """Draw one chart; None when it holds no value, or too many to be read."""
    return _curves(values) if isinstance(values, CurveChart) else _heat_map(values)


def section_pictures(sections: Sequence[Section]) -> tuple[Picture, ...]:
    """Return every chart of the sections that can be drawn, in order."""
    drawn = (chart(values) for section in sections for values in section.charts)
    return tuple(picture for picture in drawn if picture is not None)


def _curves(values: CurveChart) -> Picture | None:
    shown = [series for series in values.series if any(y is not None for y in series.y)]
    if not shown or len(shown) > MAX_SERIES:
        return None

    def paint(axes: Axes) -> None:
        if values.log_x:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
        for position, words in values.marks_x:
            axes.axvline(position, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), alpha=0.7, label=words)
        if values.reference_y is not None:
            axes.axhline(values.reference_y, color=INK, linewidth=1, linestyle=":", alpha=0.6)
        for index, series in enumerate(shown):
            _draw_series(axes, _dodged(series, index, shown, values.log_x), index, len(shown))
        if values.x_ticks:
            axes.set_xticks([position for position, _ in values.x_ticks], [name for _, name in values.x_ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            if _crowded([name for _, name in values.x_ticks], _ROOM_OF_TICKS):
                axes.tick_params(axis="x", labelrotation=40)
                for label in axes.get_xticklabels():
                    label.set_horizontalalignment("right")
        axes.set(xlabel=values.x_label, ylabel=values.y_label)
        axes.margins(x=0.06)
        axes.grid(True, axis="y")

    rows = _legend_rows(shown, values)
    return draw(values.name, values.title, values.caption, paint, height_in=3.5 + 0.22 * rows, legend_below=rows > 0)


def _legend_rows(shown: Sequence[Series], values: CurveChart) -> int:
    entries = (len(shown) if len(shown) > 1 else 0) + len(values.marks_x)
    return (entries + 1) // 2


def _dodged(series: Series, index: int, shown: Sequence[Series], log_x: bool) -> Series:
    """Move a line of few points a little to the side, so that its intervals do not cover those of the others."""
    if len(shown) < 2 or len(series.x) > _MARKED_POINTS:
        return series
    scale, back = (np.log2, np.exp2) if log_x else (np.asarray, np.asarray)
    everywhere = scale(np.concatenate([np.asarray(other.x, dtype=np.float64) for other in shown]))
    shift = _DODGE * float(np.ptp(everywhere)) * (index - (len(shown) - 1) / 2)
    return replace(series, x=tuple(back(scale(np.asarray(series.x, dtype=np.float64)) + shift).tolist()))


def _draw_series(axes: Axes, series: Series, index: int, n_series: int) -> None:
    colour, dash = COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)]
    x = np.array(series.x, dtype=np.float64)
    y, low, high = (_floats(values, len(x)) for values in (series.y, series.low, series.high))
    few = len(x) <= _MARKED_POINTS
    marker = _MARKERS[index % len(_MARKERS)] if few else ""
    axes.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=6, linewidth=1.8, label=series.name)
    if few:
        for position, bottom, top in zip(x, low, high, strict=True):
            if np.isfinite(bottom) and np.isfinite(top):
                axes.plot([position, position], [bottom, top], color=colour, linewidth=1.4, alpha=0.75)
    # Many bands over each other hide the lines; the bars of few points say the same.
    if np.isfinite(low).any() and (not few or n_series <= _MAX_BANDS):
        axes.fill_between(x, low, high, where=np.isfinite(low) & np.isfinite(high), color=colour, alpha=0.14, lw=0)


def _floats(values: Sequence[float | None], length: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values] or [np.nan] * length, dtype=np.float64)


def _heat_map(values: HeatMapChart) -> Picture | None:
    table = np.array([[np.nan if v is None else v for v in row] for row in values.values], dtype=np.float64)
    if not np.isfinite(table).any() or max(table.shape) > MAX_CELLS:
        return None
    n_rows, n_columns = table.shape

    def paint(axes: Axes) -> None:
        share = (table - values.low) / max(values.high - values.low, 1e-12)
        # Squares, not a picture: they stay sharp, and the page needs no embedded bitmap.
        axes.pcolormesh(np.ma.masked_invalid(share), cmap=_SCALE, vmin=0.0, vmax=1.0, edgecolors="none")
        axes.invert_yaxis()
        for row, column in np.ndindex(n_rows, n_columns):
            if n_columns <= MAX_CELL_TEXTS or not np.isfinite(table[row, column]):
                _cell_text(axes, row, column, float(table[row, column]), float(share[row, column]))
        names = [_short(name) for name in values.columns]
        tilt: dict[str, Any] = {"rotation": 40, "ha": "right"} if _crowded(names, _ROOM_BESIDE_NAMES) else {}
        axes.set_xticks(np.arange(n_columns) + 0.5, names, **tilt)
        axes.set_yticks(np.arange(n_rows) + 0.5, [_short(name) for name in values.rows])
        axes.tick_params(length=0)
        axes.set(xlabel=values.column_label, ylabel=values.row_label)
        axes.spines[:].set_visible(False)

    height = 1.6 + 0.34 * n_rows
    return draw(values.name, values.title, values.caption, paint, height_in=height)


def _cell_text(axes: Axes, row: int, column: int, value: float, share: float) -> None:
    if not np.isfinite(value):
        axes.text(column + 0.5, row + 0.5, "-", ha="center", va="center", fontsize=8.5)
        return
    colour = "#ffffff" if share > 0.55 else "#10202e"
    axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color=colour)


def _crowded(names: Sequence[str], room: int) -> bool:
    """Tell whether names would run into each other below an axis."""
    return sum(len(name) + 2 for name in names) > room


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"
