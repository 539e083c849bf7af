"""The figures of a report: pure functions from report values to a `Picture`, or None when there is nothing to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from forgery_det.core.types import MetricRecord
from forgery_det.reporting.data import (
    SHORTCUT_METRIC,
    Bar,
    Histogram,
    HistogramSeries,
    ReportData,
    RocLine,
    SliceGroup,
    SliceInfo,
    Threshold,
)
from forgery_det.reporting.style import (
    EXPOSURE_COLOUR,
    EXPOSURE_DASH,
    EXPOSURE_MARKER,
    EXPOSURE_NAME,
    GENERATED,
    INK,
    REAL,
    SHORTCUT,
    Picture,
    draw,
)

MAX_BARS = 40
"""More generators than this are not drawn (the table has them all)."""

_ROW_IN = 0.32
_THRESHOLD_DASHES = ((0, (1.5, 1.5)), (0, (6, 2)), (0, (6, 2, 1.5, 2)))


@dataclass(frozen=True, slots=True)
class _Spot:
    """A value that is there, and its interval."""

    value: float
    low: float | None
    high: float | None

    def left(self) -> float:
        """Return the leftmost point that is drawn."""
        return self.value if self.low is None else self.low


def pictures(data: ReportData) -> tuple[Picture, ...]:
    """Return every figure that the data allow, in page order."""
    by_key = {group.key: group for group in data.groups}
    drawn = [
        comparison(data.comparison),
        roc(data.roc),
        generators(by_key["generator"], data.records) if "generator" in by_key else None,
        histogram(data.histogram, data.thresholds),
        prompt_length(by_key["prompt_words"], data.records) if "prompt_words" in by_key else None,
    ]
    return tuple(picture for picture in drawn if picture is not None)


def comparison(bars: Sequence[Bar]) -> Picture | None:
    """The detector beside what a classifier reaches without looking at the fine content."""
    shown = [(bar, _Spot(bar.value, bar.ci_low, bar.ci_high)) for bar in reversed(bars) if bar.value is not None]
    if not shown:
        return None

    def paint(axes: Axes) -> None:
        for row, (bar, spot) in enumerate(shown):
            detector = bar.role == "detector"
            _draw_spot(axes, row, spot, INK if detector else SHORTCUT, "o" if detector else "X")
        axes.set_yticks(range(len(shown)), [bar.name for bar, _ in shown])
        _auroc_axis(axes, len(shown), min(spot.left() for _, spot in shown))

    caption = (
        "AUROC with its interval. Circles: the detector. Crosses: shortcuts that need no detector. "
        "Where a cross comes near the circles, the detector may have learnt the same shortcut."
    )
    return draw("comparison", "How much is subject matter?", caption, paint, height_in=0.95 + _ROW_IN * len(shown))


def roc(lines: Sequence[RocLine]) -> Picture | None:
    """ROC curves of all, seen and held-out generators."""
    if not lines:
        return None

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.35, linewidth=1, linestyle=":", label="chance")
        for line in lines:
            axes.plot(
                line.fpr,
                line.tpr,
                color=EXPOSURE_COLOUR[line.exposure],
                linestyle=EXPOSURE_DASH[line.exposure],
                linewidth=1.3 if line.exposure == "all" else 2.2,
                label=line.name,
            )
        axes.set(
            xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="FPR: real called generated", ylabel="TPR: generated caught"
        )
        axes.set_aspect("equal")
        axes.grid(True)
        axes.legend(loc="lower right")

    caption = "Every threshold at once. The gap between seen and held-out generators is what a new generator costs."
    return draw("roc", "ROC curve", caption, paint, height_in=4.6)


def generators(group: SliceGroup, records: Sequence[MetricRecord]) -> Picture | None:
    """AUROC of each generator with its interval, held-out ones first, best first."""
    found = _estimated(group, records, "auroc")
    if not found or len(found) > MAX_BARS:
        return None
    thumbnail = {info.key: spot for info, spot in _estimated(group, records, SHORTCUT_METRIC)}
    found.sort(key=lambda pair: (pair[0].exposure == "seen", -pair[1].value, pair[0].name), reverse=True)

    def paint(axes: Axes) -> None:
        labels: dict[str, str] = dict(EXPOSURE_NAME)
        crosses = "thumbnail only"
        for row, (info, spot) in enumerate(found):
            # pop: only the first of a kind is named in the legend
            label = labels.pop(info.exposure, None)
            _draw_spot(axes, row, spot, EXPOSURE_COLOUR[info.exposure], EXPOSURE_MARKER[info.exposure], label)
            if info.key in thumbnail:
                where = [thumbnail[info.key].value], [row]
                axes.plot(*where, color=SHORTCUT, marker="x", mew=2, linestyle="none", label=crosses or None)
                crosses = ""
        axes.set_yticks(range(len(found)), [f"{_short(info.name)} ({info.n_generated})" for info, _ in found])
        spots = [spot for _, spot in found]
        _auroc_axis(axes, len(found), min([s.left() for s in spots] + [s.value for s in thumbnail.values()]))
        axes.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=3, columnspacing=1.0, handletextpad=0.2)

    caption = (
        "Each generator's images against all real images. In brackets: how many generated images. Dotted line: chance. "
        "A cross, where the audit has one: what a tiny thumbnail alone gives away."
    )
    return draw("generators", "By generator", caption, paint, height_in=1.25 + _ROW_IN * len(found))


def histogram(values: Histogram | None, thresholds: Sequence[Threshold]) -> Picture | None:
    """Logit histograms of real and generated images, with the thresholds."""
    if values is None or not values.series:
        return None
    edge = values.edge

    def paint(axes: Axes) -> None:
        for series in values.series:
            _draw_series(axes, edge, series)
        inside = [(t.name, t.threshold) for t in thresholds if t.threshold is not None]
        inside = [(name, value) for name, value in inside if edge[0] <= value <= edge[-1]]
        for (name, value), dash in zip(inside, _THRESHOLD_DASHES, strict=False):
            axes.axvline(value, color=INK, linewidth=1.3, linestyle=dash, label=f"threshold, {name}")
        axes.set(xlabel="logit (higher = generated)", ylabel="% of the group", xlim=(edge[0], edge[-1]))
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.17), ncols=2, columnspacing=1.2, handlelength=1.8)

    caption = "Where the two kinds of images lie. Vertical lines: thresholds, chosen on val. Each group sums to 100 %."
    return draw("histogram", "Logits", caption, paint, height_in=4.4)


def prompt_length(group: SliceGroup, records: Sequence[MetricRecord]) -> Picture | None:
    """AUROC by prompt length."""
    found = _estimated(group, records, "auroc")
    if not found:
        return None

    def paint(axes: Axes) -> None:
        for column, (_, spot) in enumerate(found):
            if spot.low is not None and spot.high is not None:
                ends = [spot.low, spot.high]
                axes.plot([column, column], ends, color=GENERATED, linewidth=2.4, solid_capstyle="round")
        axes.plot(range(len(found)), [s.value for _, s in found], color=GENERATED, marker="o", linewidth=1, alpha=0.9)
        axes.axhline(0.5, color=INK, linewidth=1, linestyle=":", alpha=0.6)
        axes.set_xticks(range(len(found)), [f"{info.name}\nn = {info.n_generated}" for info, _ in found])
        bottom = min([0.5, *(spot.left() for _, spot in found)])
        axes.set(xlabel="words in the prompt", ylabel="AUROC", ylim=(bottom - 0.03, 1.02))
        axes.set_xlim(-0.5, len(found) - 0.5)
        axes.grid(True, axis="y")

    caption = (
        "Generated images whose prompt is known, against all real images. Bins may differ in generator as well as in "
        "length, so a slope alone is no proof that length matters."
    )
    return draw("prompt_length", "By prompt length", caption, paint)


def _estimated(group: SliceGroup, records: Sequence[MetricRecord], metric: str) -> list[tuple[SliceInfo, _Spot]]:
    spots = {
        r.slice: _Spot(r.value, r.ci_low, r.ci_high) for r in records if r.metric == metric and r.value is not None
    }
    return [(info, spots[info.key]) for info in group.slices if info.key in spots]


def _draw_spot(axes: Axes, row: int, spot: _Spot, colour: str, marker: str, label: str | None = None) -> None:
    if spot.low is not None and spot.high is not None:
        axes.plot([spot.low, spot.high], [row, row], color=colour, linewidth=3, alpha=0.55, solid_capstyle="round")
    axes.plot([spot.value], [row], color=colour, marker=marker, markersize=7.5, linestyle="none", label=label)


def _draw_series(axes: Axes, edge: Sequence[float], series: HistogramSeries) -> None:
    total = sum(series.count)
    real = series.exposure == "real"
    axes.stairs(
        [100.0 * count / max(total, 1) for count in series.count],
        edge,
        fill=real,
        color=REAL if real else GENERATED,
        alpha=0.45 if real else 1.0,
        linewidth=1.8,
        linestyle=EXPOSURE_DASH[series.exposure],
        label=f"{series.name} (n = {total})",
    )


def _auroc_axis(axes: Axes, n_rows: int, left: float) -> None:
    axes.axvline(0.5, color=INK, linewidth=1, linestyle=":", alpha=0.6)
    axes.set(xlim=(min(0.45, left - 0.03), 1.01), ylim=(-0.6, n_rows - 0.4), xlabel="AUROC")
    axes.grid(True, axis="x")


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"
