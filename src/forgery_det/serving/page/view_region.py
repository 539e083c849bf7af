"""Which part of the original image a detector's view shows: the geometry of a `Preprocess`, followed backwards.

A heat map computed on the view must lie on the right part of the picture that people see. Every step of the usual
geometry scales and shifts, so the view is a rectangle of the original:

    x_original = left + x_view * scale_x        y_original = top + y_view * scale_y

Padding makes the rectangle reach beyond the image. A step that is not known here (patches, mosaics, a step that came
later) gives None, and the heat map is then made another way; it is never drawn in a guessed place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from forgery_det.transforms.preprocess import MAX_ASPECT, Preprocess


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright original image; may reach beyond it where a view was padded.

    Example:
        >>> Box(10.0, 0.0, 80.0, 60.0).to_json()
        {'left': 10.0, 'top': 0.0, 'width': 80.0, 'height': 60.0}
    """

    left: float
    top: float
    width: float
    height: float

    def to_json(self) -> dict[str, float]:
        """Return the four numbers by name, rounded to a hundredth of a pixel."""
        return {name: round(getattr(self, name), 2) for name in ("left", "top", "width", "height")}


@dataclass(frozen=True, slots=True)
class _View:
    """The size of a view in its own pixels, and its rectangle in the original."""

    width_px: int
    height_px: int
    box: Box

    def resized(self, width_px: int, height_px: int) -> _View:
        return _View(width_px, height_px, self.box)

    def cut(self, left_px: int, top_px: int, width_px: int, height_px: int) -> _View:
        """Cut, or pad with negative margins, in the view's own pixels."""
        scale_x, scale_y = self.box.width / self.width_px, self.box.height / self.height_px
        left, top = self.box.left + left_px * scale_x, self.box.top + top_px * scale_y
        return _View(width_px, height_px, Box(left, top, width_px * scale_x, height_px * scale_y))


def kept_box(preprocess: Preprocess, width_px: int, height_px: int) -> Box | None:
    """Return the part of a `width_px` x `height_px` image that the view shows; None when it is no single rectangle.

    Example:
        >>> from forgery_det.transforms.preprocess import CenterCrop, ResizeShort
        >>> kept_box(Preprocess((ResizeShort(256), CenterCrop(224, 224))), 1024, 512)
        Box(left=288.0, top=32.0, width=448.0, height=448.0)
    """
    view = _View(width_px, height_px, Box(0.0, 0.0, float(width_px), float(height_px)))
    for step in preprocess.steps:
        follow = _FOLLOW.get(step.kind)
        if follow is None:
            return None
        view = follow(view, step)
    return view.box


def _centre(view: _View, width_px: int, height_px: int) -> _View:
    """`CenterCrop`: the odd pixel of padding goes right and down, of a crop by rounding half to even."""
    return view.cut(_crop_start(view.width_px, width_px), _crop_start(view.height_px, height_px), width_px, height_px)


def _crop_start(side_px: int, wanted_px: int) -> int:
    return -((wanted_px - side_px) // 2) if wanted_px > side_px else round((side_px - wanted_px) / 2)


def _resize_short(view: _View, step: Any) -> _View:
    longest = MAX_ASPECT * min(view.width_px, view.height_px)
    view = _centre(view, min(view.width_px, longest), min(view.height_px, longest))
    width, height, size = view.width_px, view.height_px, step.size_px
    if height <= width:
        return view.resized(int(size * width / height), size)
    return view.resized(size, int(size * height / width))


def _center_crop_floor(view: _View, step: Any) -> _View:
    view = _centre(view, max(view.width_px, step.width_px), max(view.height_px, step.height_px))
    left, top = (view.width_px - step.width_px) // 2, (view.height_px - step.height_px) // 2
    return view.cut(left, top, step.width_px, step.height_px)


_FOLLOW: dict[str, Callable[[_View, Any], _View]] = {
    "center_crop": lambda view, step: _centre(view, step.width_px, step.height_px),
    "center_crop_floor": _center_crop_floor,
    "limit_side": lambda view, step: _centre(
        view, min(view.width_px, step.max_side_px), min(view.height_px, step.max_side_px)
    ),
    "pad_to": lambda view, step: _centre(
        view, max(view.width_px, step.min_side_px), max(view.height_px, step.min_side_px)
    ),
    "resize_exact": lambda view, step: view.resized(step.width_px, step.height_px),
    "resize_opencv": lambda view, step: view.resized(step.width_px, step.height_px),
    "resize_short": _resize_short,
}
"""Step kind -> how it moves the rectangle. A kind that is missing costs speed, not correctness."""
