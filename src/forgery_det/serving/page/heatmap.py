"""Which part of a picture drives the logit: cover one cell after the other and see how the logit moves.

    delta(cell) = logit(picture) - logit(picture with the cell filled by its mean colour)       (Zeiler and Fergus 2014)

Positive: covering this cell lowers the logit, so what lies there speaks for "generated". Negative: for "real". The
cells do not overlap and are filled with the mean colour of what the detector sees.

Where the detector's view is one rectangle of the picture (`view_region`), the view itself is covered: the geometry runs
once, and the map lies on that rectangle. Where it is not (mosaics of patches, several views), the picture is covered
before the geometry, which runs once a cell, and the map lies on the whole picture.

What it cannot show: traces that every part carries alone, since covering one cell then changes little; and the edge of
the cover is itself something that a detector may notice. No torch: the service runs this on a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.serving.page.view_region import Box, kept_box
from forgery_det.transforms.preprocess import ImageArray, Preprocess

GRID = 8
"""Cells along each side; 64 forward passes a picture."""

MAX_GRID = 32
"""A thousand forward passes: beyond this a request would hold a worker for minutes."""

BATCH_PX = 4_000_000
"""Pixels of covered views held at once, so that a large view cannot fill the memory."""


class Facts(Protocol):
    """What the heat map needs to know of a bundle."""

    @property
    def preprocess(self) -> Preprocess:
        """The geometry."""


class Scorer(Protocol):
    """What the heat map needs of a `Predictor`."""

    @property
    def facts(self) -> Facts:
        """Facts of the bundle."""

    def logits(self, views: ImageArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logit and score of preprocessed uint8 views."""


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """How the logit reacts to covering each cell of a grid.

    Args:
        delta_RC: Rows from the top, columns from the left; units of the logit; positive speaks for "generated".
        baseline_logit: Of the uncovered picture.
        box: Where the grid lies, in pixels of the upright original; may reach beyond it where the view was padded.
        width_px: Of the upright original.
        height_px: Of the upright original.
        covered: `view` when the detector's view was covered, `picture` when the picture was, before the geometry.
    """

    delta_RC: NDArray[np.float64]
    baseline_logit: float
    box: Box
    width_px: int
    height_px: int
    covered: Literal["view", "picture"]

    @property
    def rows(self) -> int:
        """Cells from top to bottom."""
        return int(self.delta_RC.shape[0])

    @property
    def cols(self) -> int:
        """Cells from left to right."""
        return int(self.delta_RC.shape[1])

    @property
    def strongest(self) -> float:
        """The largest change of the logit by covering one cell, with its sign."""
        return float(self.delta_RC.flat[int(np.abs(self.delta_RC).argmax())])

    def to_json(self) -> dict[str, Any]:
        """Return what `POST /v1/explain` answers."""
        return {
            "method": "occlusion",
            "rows": self.rows,
            "cols": self.cols,
            "delta": [[round(value, 5) for value in row] for row in self.delta_RC.tolist()],
            "baseline_logit": round(self.baseline_logit, 6),
            "strongest": round(self.strongest, 5),
            "box_px": self.box.to_json(),
            "image_px": {"width": self.width_px, "height": self.height_px},
            "covered": self.covered,
            "fill": "mean_colour",
        }


def occlusion(
    predictor: Scorer, image_HWC: ImageArray, *, grid: int = GRID, max_seconds: float | None = None
) -> Heatmap:
    """Cover each cell of a grid and return how the logit moves.

    Args:
        predictor: Whose logit.
        image_HWC: Decoded upright picture, uint8 RGB of any size.
        grid: Cells along each side, at most `MAX_GRID`; fewer where the view has fewer pixels.
        max_seconds: Give up after this time, so that one slow picture cannot hold a service's thread; None never.

    Raises:
        ConfigError: `grid` is out of range.
        ImageError: `too_slow`: not done in `max_seconds`.

    Example:
        >>> class Brightness:  # a stand-in: the brighter the picture, the higher the logit
        ...     class facts:
        ...         preprocess = Preprocess(())
        ...     def logits(self, views):
        ...         mean = views.mean(axis=(1, 2, 3)).astype(np.float32)
        ...         return mean, mean
        >>> picture = np.zeros((16, 16, 3), np.uint8)
        >>> picture[:8, :8] = 255  # only the upper left is bright
        >>> occlusion(Brightness(), picture, grid=2).delta_RC.round(1).tolist()
        [[47.8, -16.0], [-16.0, -16.0]]
    """
    if isinstance(grid, bool) or not 1 <= grid <= MAX_GRID:
        raise ConfigError(f"Expected `grid` in [1, {MAX_GRID}], got {grid}.")
    height, width = image_HWC.shape[:2]
    preprocess = predictor.facts.preprocess
    view = preprocess(image_HWC)
    box = kept_box(preprocess, width, height) if view.ndim == 3 else None
    covered: Iterator[ImageArray]
    if box is None:
        shape = image_HWC.shape[:2]
        covered = map(preprocess, _covered(image_HWC, grid))
    else:
        shape = view.shape[:2]
        covered = _covered(view, grid)
    baseline = float(predictor.logits(view[None])[0][0])
    covered = _in_time(covered, max_seconds)
    logit_N = np.concatenate([predictor.logits(batch)[0] for batch in _batches(covered, view.size // 3)])
    return Heatmap(
        delta_RC=baseline - logit_N.astype(np.float64).reshape(min(grid, shape[0]), min(grid, shape[1])),
        baseline_logit=baseline,
        box=box or Box(0.0, 0.0, float(width), float(height)),
        width_px=width,
        height_px=height,
        covered="picture" if box is None else "view",
    )


def _covered(image_HWC: ImageArray, grid: int) -> Iterator[ImageArray]:
    """Yield a copy for each cell, row by row, with the cell filled by the mean colour of the whole."""
    height, width = image_HWC.shape[:2]
    rows, cols = min(grid, height), min(grid, width)
    mean = np.rint(image_HWC.mean(axis=(0, 1))).astype(np.uint8)
    for row in range(rows):
        for col in range(cols):
            copy = image_HWC.copy()
            down = slice(row * height // rows, (row + 1) * height // rows)
            across = slice(col * width // cols, (col + 1) * width // cols)
            copy[down, across] = mean
            yield copy


def _in_time(views: Iterator[ImageArray], max_seconds: float | None) -> Iterator[ImageArray]:
    """Yield the views until the time is over."""
    start = time.monotonic()
    for n_done, view in enumerate(views):
        if max_seconds is not None and time.monotonic() - start >= max_seconds:
            raise ImageError(
                "too_slow", f"Expected a heat map within {max_seconds:g} s, got {n_done} cells of it in that time."
            )
        yield view


def _batches(views: Iterator[ImageArray], view_px: int) -> Iterator[ImageArray]:
    """Stack views into batches of at most `BATCH_PX` pixels; a view that alone is larger goes by itself."""
    size = int(np.clip(BATCH_PX // max(view_px, 1), 1, 32))
    held: list[ImageArray] = []
    for view in views:
        held.append(view)
        if len(held) == size:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
