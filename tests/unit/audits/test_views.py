from __future__ import annotations

import numpy as np

from forgery_det.audits.views import GRAY_PX, VIEWS, View, best_correlation, cut, small_gray, view_hashes
from forgery_det.recipes.phash import parse_hashes, phash
from synth.planted import picture


def test_a_view_is_the_piece_that_it_names() -> None:
    gray = np.add.outer(np.arange(200), np.arange(300) / 2).astype(np.uint8)
    view = View(0.5, 1.0, 0.0)
    expected = gray[0:100, 150:300].astype(float)
    assert np.abs(cut(gray, view).mean() - expected.mean()) < 1.0


def test_gray_is_bounded_and_small_images_stay() -> None:
    assert small_gray(picture(0, 300, 200)).shape == (144, GRAY_PX)
    assert small_gray(picture(0, 40, 48)).shape == (40, 48)


def test_hashes_of_views_are_those_of_the_pieces() -> None:
    image = picture(3, GRAY_PX, 2 * GRAY_PX)
    hashes = view_hashes(image)
    assert hashes.shape == (len(VIEWS),)
    top_left = VIEWS.index(View(0.85, 0.0, 0.0))
    piece = image[: round(0.85 * GRAY_PX), : round(1.7 * GRAY_PX)]
    assert int(np.bitwise_count(hashes[top_left] ^ parse_hashes([phash(piece)])[0])) <= 2


def test_alignment_finds_a_crop_and_refuses_another_picture() -> None:
    image = picture(5, 120, 140)
    piece = image[9:111, 4:121]
    start = View(0.85, 0.5, 0.5)
    assert best_correlation(small_gray(image), small_gray(piece), start) > 0.98
    for seed in range(6, 16):
        assert best_correlation(small_gray(image), small_gray(picture(seed, 102, 117)), start) < 0.9


def test_a_flat_image_correlates_with_nothing() -> None:
    flat = np.full((64, 64), 9, np.uint8)
    assert best_correlation(flat, small_gray(picture(0, 64, 64)), VIEWS[0]) == 0.0
