"""What the figures draw: ROC curves and logit histograms of a scored table, small enough for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.types import GENERATED
from forgery_det.evaluation.slices import HELD_OUT, OVERALL, SEEN, Slice
from forgery_det.metrics.ranking import roc_curve
from forgery_det.reporting.data import Histogram, HistogramSeries, RocLine

MAX_POINTS = 400
"""Corners kept of a ROC curve; more cannot be seen."""

MIN_BINS, MAX_BINS = 12, 60
_NAMES = {OVERALL: "all generators", SEEN: "seen in training", HELD_OUT: "held out"}


def roc_lines(table: pl.DataFrame, slices: Sequence[Slice]) -> tuple[RocLine, ...]:
    """Return ROC curves over all, seen and held-out generators, those without both classes left out."""
    label_N, logit_N = table["label"].to_numpy(), table["logit"].to_numpy()
    by_key = {part.key: part for part in slices}
    lines = []
    for key, name in _NAMES.items():
        part = by_key.get(key)
        if part is None or not part.n_real or not part.n_generated:
            continue
        curve = roc_curve(label_N[part.row_N], logit_N[part.row_N])
        keep = np.unique(np.linspace(0, len(curve.fpr) - 1, MAX_POINTS).round().astype(int))
        fpr, tpr = tuple(curve.fpr[keep].tolist()), tuple(curve.tpr[keep].tolist())
        exposure = "all" if key == OVERALL else part.exposure
        lines.append(RocLine(f"{name} (n = {part.n_generated})", exposure, fpr, tpr))
    return tuple(lines)


def logit_histogram(table: pl.DataFrame, seen: frozenset[str] | None) -> Histogram | None:
    """Return logit histograms of real images and of generated ones, the latter split by seen and held out."""
    logit_N = table["logit"].to_numpy()
    if not logit_N.size:
        return None
    # About the square root of the count: few images in many bins would be all spikes.
    edge = np.histogram_bin_edges(logit_N, bins=int(np.clip(1.3 * logit_N.size**0.5, MIN_BINS, MAX_BINS)))
    generated = table["label"] == GENERATED
    groups: Mapping[tuple[str, str], pl.Series] = {("real", "real"): ~generated, ("generated", "all"): generated}
    if seen is not None:
        known = table["generator"].is_in(sorted(seen))
        groups = {
            ("real", "real"): ~generated,
            ("generated, seen", "seen"): generated & known,
            ("generated, held out", "held_out"): generated & ~known,
        }
    series = [
        HistogramSeries(name, exposure, _counts(logit_N[mask.to_numpy()], edge))  # type: ignore[arg-type]
        for (name, exposure), mask in groups.items()
        if mask.any()
    ]
    return Histogram(tuple(edge.tolist()), tuple(series))


def _counts(logit_N: NDArray[np.float64], edge: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(np.histogram(logit_N, bins=edge)[0].tolist())
