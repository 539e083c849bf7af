"""What a table of detectors says: the card, the number of parameters, and the time an image takes on this machine.

Parameters are counted on torch's meta device, which has shapes and no memory, so that the largest networks cost
nothing. Times are measured with random weights: they depend on the architecture alone.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.registry import DETECTORS

_HEADINGS = ("name", "paper", "year", "backbone", "input", "M values", "M learn", "official weights", "licence")


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """One detector at its published size.

    Args:
        card: What the detector says of itself.
        n_parameters: All parameters.
        n_learning: Parameters that a training moves.
        time_ms: Milliseconds from decoded image to logit, None when it was not measured.
    """

    card: DetectorCard
    n_parameters: int
    n_learning: int
    time_ms: float | None = None


def detector_rows(names: Sequence[str] | None = None, measure: bool = False) -> Iterator[DetectorRow]:
    """Yield a row for each detector.

    Args:
        names: Registry names; None for all.
        measure: Build each at full size and time it: gigabytes of memory and minutes for all of them.
    """
    for name in names or DETECTORS.names():
        detector = _build(name, "meta")
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in detector.parameters()]
        time_ms = _time_ms(_build(name, "cpu")) if measure else None
        yield DetectorRow(
            detector.card, sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns), time_ms
        )


def markdown_table(rows: Sequence[DetectorRow]) -> str:
    """Return the rows as a Markdown table, with the times where they were measured."""
    timed = any(row.time_ms is not None for row in rows)
    headings = (*_HEADINGS, "ms an image") if timed else _HEADINGS
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row in rows:
        card = row.card
        cells = [f"`{card.name}`", card.paper, str(card.year), card.backbone, card.input]
        cells += [
            _millions(row.n_parameters),
            _millions(row.n_learning),
            card.official_weights or "-",
            card.licence or "-",
        ]
        if timed:
            cells.append("" if row.time_ms is None else f"{row.time_ms:.0f}")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def _build(name: str, device: str) -> Detector:
    detector_class = DETECTORS.get(name)
    # No download: neither shapes nor times depend on the values of weights.
    settings = {"backbone_weights": None} if "backbone_weights" in inspect.signature(detector_class).parameters else {}
    try:
        with torch.device(device):
            detector: Detector = detector_class(**settings)
    except RuntimeError:
        # A constructor that looks at values cannot run on the meta device; those detectors are small.
        detector = detector_class(**settings)
    return detector


def _time_ms(detector: Detector, n_runs: int = 3) -> float:
    """Return the median time of one image of 512 x 512 px, after one run to warm up."""
    image_HWC = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    detector.logit(image_HWC)
    times = []
    for _ in range(n_runs):
        started = time.perf_counter()
        detector.logit(image_HWC)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}" if count >= 50_000 else f"{count / 1e6:.4f}".rstrip("0").rstrip(".")
