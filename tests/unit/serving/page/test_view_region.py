"""The rectangle of a view is checked against pixels: a picture of coordinates goes through the geometry itself."""

from __future__ import annotations

import numpy as np
import pytest

from forgery_det.serving.page.view_region import Box, kept_box
from forgery_det.transforms.preprocess import STEPS, CenterCrop, Preprocess, ResizeExact, ResizeShort, Step
from forgery_det.transforms.steps_geometry import LimitSide, PadTo
from forgery_det.transforms.steps_opencv import CenterCropFloor, ResizeOpenCV
from forgery_det.transforms.steps_patches import TextureMosaics

FOLLOWED: dict[str, tuple[Step, ...]] = {
    "center_crop": (CenterCrop(64, 80),),
    "center_crop_floor": (CenterCropFloor(63, 80),),
    "limit_side": (LimitSide(90),),
    "pad_to": (PadTo(400, "zero"),),
    "resize_exact": (ResizeExact(48, 96),),
    "resize_opencv": (ResizeOpenCV(48, 96),),
    "resize_short": (ResizeShort(70), CenterCrop(64, 64)),
}
SIZES = [(200, 150), (151, 233), (120, 121)]


def seen_by_ramp(preprocess: Preprocess, width: int, height: int) -> Box:
    """Send x and y through the geometry as grey levels, and read off by a straight line where the view lies."""
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = np.rint((np.arange(width) + 0.5) * 250 / width)[None]
    ramp[:, :, 1] = np.rint((np.arange(height) + 0.5) * 250 / height)[:, None]
    ramp[:, :, 2] = 255  # padding is 0 here
    view = preprocess(ramp)
    edges = []
    for axis, channel, side in ((1, 0, width), (0, 1, height)):
        inside = np.flatnonzero(view[:, :, 2].max(axis=1 - axis) == 255)
        middle = np.take(view[:, :, channel], view.shape[1 - axis] // 2, axis=1 - axis)
        slope, start = np.polyfit(inside + 0.5, middle[inside].astype(float) * side / 250, 1)
        edges.append((start, slope * view.shape[axis]))
    (left, wide), (top, high) = edges
    return Box(left, top, wide, high)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", FOLLOWED)
def test_the_rectangle_is_where_the_geometry_takes_its_pixels(kind: str, size: tuple[int, int]) -> None:
    preprocess = Preprocess(FOLLOWED[kind])
    found, seen = kept_box(preprocess, *size), seen_by_ramp(preprocess, *size)
    assert found is not None
    for name in ("left", "top", "width", "height"):
        assert getattr(found, name) == pytest.approx(getattr(seen, name), abs=0.02 * max(size)), name


def test_every_step_is_followed_or_told_to_be_no_rectangle() -> None:
    assert set(STEPS) == {*FOLLOWED, "texture_mosaics"}
    assert kept_box(Preprocess((TextureMosaics(),)), 300, 200) is None


def test_padding_reaches_beyond_the_picture() -> None:
    assert kept_box(Preprocess((CenterCrop(100, 100),)), 60, 100) == Box(-20.0, 0.0, 100.0, 100.0)


def test_of_a_strip_only_the_middle_is_seen() -> None:
    box = kept_box(Preprocess((ResizeShort(8),)), 8000, 10)
    assert box == Box(3680.0, 0.0, 640.0, 10.0)


def test_no_geometry_shows_all() -> None:
    assert kept_box(Preprocess(()), 30, 20) == Box(0.0, 0.0, 30.0, 20.0)
