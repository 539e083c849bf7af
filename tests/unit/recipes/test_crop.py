from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.crop import MAX_OVERLAP, crop_corners, crops
from forgery_det.recipes.recipe import CropPolicy


def numbered(height: int, width: int) -> np.ndarray:
    """Every pixel tells its own place, so a crop tells where it was cut."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y % 256, x % 256, y // 256 * 16 + x // 256], axis=2).astype(np.uint8)


def corner_of(crop: np.ndarray) -> tuple[int, int]:
    y, x, high = (int(v) for v in crop[0, 0])
    return y + 256 * (high // 16), x + 256 * (high % 16)


def test_without_a_size_the_whole_image_is_the_crop() -> None:
    image = numbered(40, 70)
    (crop,) = crops(image, CropPolicy())
    assert np.array_equal(crop, image)


def test_crops_are_the_pixels_of_the_image_and_do_not_overlap() -> None:
    image = numbered(512, 1024)
    pieces = crops(image, CropPolicy(count=4, size_px=256))
    corners = [corner_of(piece) for piece in pieces]
    covered = np.zeros((512, 1024), int)
    for (y, x), piece in zip(corners, pieces, strict=True):
        assert np.array_equal(piece, image[y : y + 256, x : x + 256])
        covered[y : y + 256, x : x + 256] += 1
    assert len(pieces) == 4
    assert covered.max() == 1


def test_the_crops_of_an_exact_grid_are_that_grid() -> None:
    assert crop_corners(200, 300, 100, 6) == ((0, 0), (0, 100), (0, 200), (100, 0), (100, 100), (100, 200))


def test_an_image_smaller_than_one_crop_gives_none() -> None:
    assert crops(numbered(63, 200), CropPolicy(count=1, size_px=64)) == ()


def test_a_small_image_gives_fewer_and_is_never_enlarged() -> None:
    policy = CropPolicy(count=8, size_px=64, short_side_px=512)
    pieces = crops(numbered(64, 128), policy)
    assert [corner_of(piece) for piece in pieces] == [(0, 0), (0, 64)]


def test_the_short_side_is_brought_down_first() -> None:
    (crop,) = crops(numbered(400, 800), CropPolicy(short_side_px=100))
    assert crop.shape == (100, 200, 3)
    (crop,) = crops(numbered(80, 800), CropPolicy(short_side_px=100))
    assert crop.shape == (80, 800, 3)


def test_one_crop_is_the_centre() -> None:
    assert crop_corners(100, 200, 60, 1) == ((20, 70),)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(40, 300), st.integers(1, 20))
def test_corners_are_inside_and_overlap_within_the_limit(height: int, width: int, size: int, count: int) -> None:
    corners = crop_corners(height, width, size, count)
    assert len(corners) <= count
    assert len(set(corners)) == len(corners)
    assert bool(corners) == (min(height, width) >= size)
    for y, x in corners:
        assert 0 <= y <= height - size
        assert 0 <= x <= width - size
    for a in range(len(corners)):
        for b in range(a):
            dy, dx = (abs(p - q) for p, q in zip(corners[a], corners[b], strict=True))
            # Two crops in one row are at least 75 % of a side apart; starts are rounded down, hence one pixel.
            assert max(dy, dx) >= (1 - MAX_OVERLAP) * size - 1


def test_wrong_policies_are_told() -> None:
    image = numbered(10, 10)
    with pytest.raises(ConfigError, match=r"Expected `count` of at least 1, got 0 \(crop of the recipe\)\."):
        crops(image, CropPolicy(count=0))
    with pytest.raises(ConfigError, match=r"Expected `size_px` where several crops are asked for"):
        crops(image, CropPolicy(count=2))
