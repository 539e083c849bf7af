"""Heat maps of planted detectors: what they look at is known, so where the map must be hot is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.serving.page import heatmap as module
from forgery_det.serving.page.heatmap import MAX_GRID, Heatmap, occlusion
from forgery_det.transforms.preprocess import CenterCrop, ImageArray, Preprocess, ResizeShort
from forgery_det.transforms.steps_patches import TextureMosaics

GEOMETRY = Preprocess((ResizeShort(64), CenterCrop(64, 64)))


class Planted:
    """A predictor whose logit is a given function of a view."""

    def __init__(self, preprocess: Preprocess, logit: Callable[[ImageArray], float]) -> None:
        self.facts = SimpleNamespace(preprocess=preprocess)
        self.logit = logit
        self.batches: list[int] = []

    def logits(self, views: ImageArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.batches.append(len(views))
        logit_B = np.array([self.logit(view) for view in views], np.float32)
        return logit_B, 1 / (1 + np.exp(-logit_B))


def corner(view: ImageArray) -> float:
    """Redness of the upper left eighth of the view, less the blueness of its lower right eighth."""
    return float(view[:8, :8, 0].mean() - view[-8:, -8:, 2].mean()) / 25


def two_marks() -> ImageArray:
    """640 x 320, so that the view is the square from x = 160 to 480; red and blue patches lie in its corners."""
    picture = np.full((320, 640, 3), 90, np.uint8)
    picture[:40, 160:200] = (255, 90, 90)
    picture[-40:, 440:480] = (90, 90, 255)
    return picture


def hottest(found: Heatmap, sign: int) -> tuple[float, float, float, float]:
    """Return the cell that moves the logit most, as a rectangle of the original: left, top, right, bottom."""
    row, col = np.unravel_index(int((sign * found.delta_RC).argmax()), found.delta_RC.shape)
    wide, high = found.box.width / found.cols, found.box.height / found.rows
    left, top = found.box.left + col * wide, found.box.top + row * high
    return left, top, left + wide, top + high


def test_the_map_lies_on_what_the_detector_reacts_to() -> None:
    found = occlusion(Planted(GEOMETRY, corner), two_marks())
    assert (found.rows, found.cols, found.covered) == (8, 8, "view")
    assert hottest(found, 1) == (160, 0, 200, 40)  # red speaks for "generated": positive
    assert hottest(found, -1) == (440, 280, 480, 320)  # blue speaks for "real": negative
    assert np.count_nonzero(found.delta_RC) == 2
    assert found.baseline_logit == pytest.approx(corner(GEOMETRY(two_marks())))


def test_the_change_is_that_of_covering_by_the_mean_colour() -> None:
    picture = two_marks()
    view = GEOMETRY(picture)
    covered = view.copy()
    covered[:8, :8] = np.rint(view.mean(axis=(0, 1)))
    found = occlusion(Planted(GEOMETRY, corner), picture)
    assert found.delta_RC[0, 0] == pytest.approx(corner(view) - corner(covered), rel=1e-5)


def test_a_view_that_is_no_rectangle_is_covered_before_the_geometry() -> None:
    picture = np.full((80, 160, 3), 90, np.uint8)
    picture[:10, :20] = (255, 90, 90)
    mosaics = Preprocess((TextureMosaics(patch_px=8, grid=8, n_patches=192),))
    found = occlusion(Planted(mosaics, lambda view: float((view[..., 0] > 200).mean())), picture)
    assert found.covered == "picture"
    assert found.box.to_json() == {"left": 0, "top": 0, "width": 160, "height": 80}
    assert hottest(found, 1) == (0, 0, 20, 10)


def test_views_are_scored_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_PX", 10 * 64 * 64)
    planted = Planted(GEOMETRY, corner)
    occlusion(planted, two_marks())
    assert planted.batches == [1, *[10] * 6, 4]


def test_a_picture_smaller_than_the_grid_has_a_cell_for_each_pixel() -> None:
    found = occlusion(Planted(Preprocess(()), lambda view: float(view.mean())), np.zeros((3, 5, 3), np.uint8))
    assert (found.rows, found.cols) == (3, 5)


def test_uneven_cells_cover_every_pixel_once() -> None:
    """The logit is linear in the pixels, so the changes of all cells add up to that of covering everything."""
    picture = np.random.default_rng(3).integers(0, 255, (53, 67, 3), dtype=np.uint8)
    planted = Planted(Preprocess(()), lambda view: float(view.astype(np.int64).sum()) / 1e4)
    found = occlusion(planted, picture, grid=7)
    everything = np.broadcast_to(np.rint(picture.mean(axis=(0, 1))).astype(np.uint8), picture.shape)
    assert found.delta_RC.sum() == pytest.approx(planted.logit(picture) - planted.logit(everything), abs=1e-2)


def test_the_json_says_where_and_how() -> None:
    told = occlusion(Planted(GEOMETRY, corner), two_marks(), grid=2).to_json()
    assert told["box_px"] == {"left": 160.0, "top": 0.0, "width": 320.0, "height": 320.0}
    assert told["image_px"] == {"width": 640, "height": 320}
    assert told["strongest"] == max((value for row in told["delta"] for value in row), key=abs)
    assert told["delta"][0][0] > 0 > told["delta"][1][1]
    assert (told["rows"], told["cols"], told["fill"], told["covered"]) == (2, 2, "mean_colour", "view")


@pytest.mark.parametrize("grid", [0, -1, MAX_GRID + 1, True])
def test_a_grid_out_of_range_is_refused(grid: int) -> None:
    with pytest.raises(ConfigError, match=rf"Expected `grid` in \[1, {MAX_GRID}\], got {grid}\."):
        occlusion(Planted(GEOMETRY, corner), two_marks(), grid=grid)


def test_a_slow_detector_is_given_up_and_the_text_says_how_far_it_came() -> None:
    with pytest.raises(ImageError, match=r"too_slow: Expected a heat map within 0 s, got 0 cells of it"):
        occlusion(Planted(GEOMETRY, corner), two_marks(), max_seconds=0)
    assert occlusion(Planted(GEOMETRY, corner), two_marks(), max_seconds=3600).rows == 8
