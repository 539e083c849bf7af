from __future__ import annotations

import cv2
import numpy as np
import pytest

from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_opencv import CenterCropFloor, ResizeOpenCV

SIZES = [(1, 1), (1, 800), (288, 320), (448, 448), (181, 150), (224, 224), (28, 35), (500, 3), (62, 400)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("target", [(224, 224), (31, 200)], ids=str)
def test_resize_is_opencvs_to_the_bit(size, target):
    image_HWC = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(image_HWC, target[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(ResizeOpenCV(*target)(image_HWC), expected)


def test_an_odd_margin_is_left_at_the_bottom_and_on_the_right():
    image_HWC = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
    np.testing.assert_array_equal(CenterCropFloor(4, 4)(image_HWC), image_HWC[1:5, 0:4])


def test_a_small_image_is_padded_with_black():
    crop = CenterCropFloor(6, 4)(np.full((3, 9, 3), 7, np.uint8))
    assert crop.shape == (6, 4, 3)
    assert (crop[1:4] == 7).all()
    assert crop[0].max() == 0
    assert crop[4:].max() == 0


def test_both_survive_json():
    preprocess = Preprocess((ResizeOpenCV(8, 9), CenterCropFloor(4, 5)))
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
