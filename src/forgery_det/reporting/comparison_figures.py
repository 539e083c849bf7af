"""Figures of a comparison: AUROCs with intervals, differences with intervals, and the critical-difference diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from forgery_det.reporting.style import GENERATED, INK, REAL, Picture, draw

MAX_ROWS = 40
"""More lines than this are not drawn; the table has them all."""

_ROW_IN = 0.34


@dataclass(frozen=True, slots=True)
class Interval:
    """A named value with its interval; None where it is not estimable."""

    name: str
    value: float | None
    low: float | None
    high: float | None


def leaderboard_figure(name: str, rows: Sequence[Interval]) -> Picture | None:
    """Draw AUROCs in the given order, the first on top; None when there is nothing, or too much, to draw."""
    caption = (
        "AUROC with its 95 % interval; letters as in the table. Overlapping intervals do not mean that two detectors "
        "are alike: the figure of differences says that."
    )
    return _dots(name, "AUROC", caption, rows, "AUROC", reference=0.5)


def difference_figure(name: str, rows: Sequence[Interval]) -> Picture | None:
    """Draw paired differences of AUROC; None when there is nothing, or too much, to draw."""
    caption = (
        "Difference of AUROC on the same images, with its 95 % interval before adjustment for many comparisons. An "
        "interval that crosses the dotted line leaves open who is better. Filled: the interval is clear of it."
    )
    return _dots(name, "Differences", caption, rows, "difference of AUROC", reference=0.0)


def _dots(
    name: str, title: str, caption: str, rows: Sequence[Interval], x_label: str, reference: float
) -> Picture | None:
    shown = [(row, row.value) for row in reversed(rows) if row.value is not None]
    if not shown or len(shown) > MAX_ROWS:
        return None

    def paint(axes: Axes) -> None:
        axes.axvline(reference, color=INK, linewidth=1, linestyle=":", alpha=0.7)
        for place, (row, value) in enumerate(shown):
            low, high = row.low, row.high
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=REAL, linewidth=3, alpha=0.55, solid_capstyle="round")
            clear = low is not None and high is not None and not low <= reference <= high
            axes.plot([value], [place], color=REAL, marker="o", markersize=7.5, mfc=REAL if clear else "none", mew=1.8)
        axes.set_yticks(range(len(shown)), [_short(row.name) for row, _ in shown])
        axes.set(ylim=(-0.6, len(shown) - 0.4), xlabel=x_label)
        axes.grid(True, axis="x")

    return draw(name, title, caption, paint, height_in=0.95 + _ROW_IN * len(shown))


def rank_figure(
    names: Sequence[str], mean_rank: Sequence[float], gap: float, groups: Sequence[Sequence[str]]
) -> Picture:
    """Draw the critical-difference diagram of Demsar (2006): mean ranks, and bars over what does not differ.

    Args:
        names: Detectors, best first.
        mean_rank: Of each, ascending; 1 is best.
        gap: Critical difference.
        groups: Names that do not differ; a group of one has no bar.
    """
    bars = [group for group in groups if len(group) > 1]
    rank = dict(zip(names, mean_rank, strict=True))
    top = len(names) + 0.2

    def paint(axes: Axes) -> None:
        for place, name in enumerate(names):
            row = len(names) - 1 - place
            axes.plot([rank[name], rank[name]], [row, top], color=INK, linewidth=0.9, alpha=0.4)
            axes.plot([rank[name]], [row], color=REAL, marker="o", markersize=7)
        for index, group in enumerate(bars):
            height = top + 0.35 + 0.3 * index
            ends = [rank[group[0]] - 0.03, rank[group[-1]] + 0.03]
            axes.plot(ends, [height, height], color=GENERATED, linewidth=4, solid_capstyle="butt")
        height = top + 0.75 + 0.3 * len(bars)
        axes.plot([1, 1 + gap], [height, height], color=INK, linewidth=1.6, marker="|", markersize=9)
        axes.text(1 + gap / 2, height + 0.15, f"critical difference {gap:.2f}", ha="center", va="bottom", fontsize=9)
        axes.set_yticks(range(len(names)), [f"{_short(name)}  {rank[name]:.2f}" for name in reversed(names)])
        right = max(len(names), 1 + gap)
        axes.set(xlim=(0.8, right + 0.2), ylim=(-0.6, height + 0.9), xlabel="mean rank of AUROC (1 = best)")
        axes.grid(True, axis="x")

    caption = (
        "Mean ranks over the datasets. Detectors under one bar are not shown to differ (Nemenyi); the bar on top is as "
        "long as the smallest difference that counts."
    )
    return draw(
        "ranks", "Critical differences", caption, paint, height_in=1.6 + _ROW_IN * len(names) + 0.15 * len(bars)
    )


def _short(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:16]}…{name[-17:]}"
