from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as tv
from torchvision.transforms.functional import InterpolationMode

from forgery_det.core.errors import ConfigError
from forgery_det.transforms.preprocess import (
    MAX_ASPECT,
    STEPS,
    CenterCrop,
    Preprocess,
    ResizeExact,
    ResizeShort,
    resize,
)

SIZES = [(1, 1), (1, 40), (37, 1), (7, 9), (31, 64), (64, 64), (65, 224), (223, 300)]
KERNELS = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS", "box": "BOX"}
CHOICES = {
    "center_crop": {"height_px": 8, "width_px": 9, "pad": "reflect"},
    "resize_exact": {"height_px": 8, "width_px": 9, "kernel": "box"},
    "resize_short": {"size_px": 12, "kernel": "bilinear"},
}
"""Parameters that differ from the defaults; a step without an entry gets 24 for whatever it needs."""


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos"])
def test_resize_short_equals_torchvision_on_pillow(size, kernel):
    image = noise(*size)
    theirs = tv.resize(Image.fromarray(image), [32], InterpolationMode(kernel))
    np.testing.assert_array_equal(ResizeShort(32, kernel)(image), np.asarray(theirs))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [(1, 1), (16, 16), (33, 20), (64, 65)])
def test_center_crop_equals_torchvision(size, crop):
    image = noise(*size)
    theirs = tv.center_crop(Image.fromarray(image), list(crop))
    np.testing.assert_array_equal(CenterCrop(*crop)(image), np.asarray(theirs))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 6), (30, 12)])
def test_reflection_equals_opencv_reflect_101(size):
    image = noise(*size)
    height, width = (max(0, 33 - side) for side in size)
    margins = (height // 2, (height + 1) // 2, width // 2, (width + 1) // 2)
    theirs = cv2.copyMakeBorder(image, *margins, cv2.BORDER_REFLECT_101)
    np.testing.assert_array_equal(CenterCrop(33, 33, "reflect")(image), theirs)


@pytest.mark.parametrize("kernel", KERNELS)
def test_resize_exact_equals_pillow(kernel):
    image = noise(31, 64)
    theirs = Image.fromarray(image).resize((20, 45), Image.Resampling[KERNELS[kernel]])
    np.testing.assert_array_equal(ResizeExact(45, 20, kernel)(image), np.asarray(theirs))


@pytest.mark.parametrize("size", [(1, 8000), (8000, 1), (3, 5000)])
def test_only_the_middle_of_a_long_strip_is_resized(size):
    image = noise(*size)
    short = min(size)
    kept = MAX_ASPECT * short
    middle = tv.center_crop(Image.fromarray(image), [min(side, kept) for side in size])
    expected = np.asarray(tv.resize(middle, [32], InterpolationMode.BICUBIC))
    np.testing.assert_array_equal(ResizeShort(32)(image), expected)
    assert max(expected.shape) == 32 * MAX_ASPECT


def test_an_8000_px_photograph_is_resized_whole():
    image = np.zeros((200, 8000, 3), np.uint8)
    image[:, 4000:] = 255
    assert ResizeShort(32)(image).shape == (32, 1280, 3)


def test_steps_run_in_order_and_leave_the_input_alone():
    image = noise(50, 70)
    before = image.copy()
    result = Preprocess((ResizeShort(32), CenterCrop(28, 24)))(image)
    np.testing.assert_array_equal(result, CenterCrop(28, 24)(ResizeShort(32)(image)))
    np.testing.assert_array_equal(image, before)
    assert result.flags["C_CONTIGUOUS"]


def test_no_steps_keep_the_image():
    np.testing.assert_array_equal(Preprocess()(noise(5, 6)), noise(5, 6))


@pytest.mark.parametrize("kind", STEPS.names())
def test_every_step_is_read_from_json_as_it_was_written(kind):
    step_class = STEPS.get(kind)
    needed = {field.name: 24 for field in dataclasses.fields(step_class) if field.default is dataclasses.MISSING}
    step = step_class(**CHOICES.get(kind, needed))
    assert step.kind == kind
    preprocess = Preprocess((CenterCrop(40, 40), step))
    again = Preprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert again == preprocess
    np.testing.assert_array_equal(again(noise(31, 64)), preprocess(noise(31, 64)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{"kind": "resize_shrt"}], "Unknown preprocessing step 'resize_shrt': did you mean 'resize_short'"),
        ([{}], "Unknown preprocessing step 'None'"),
        ([{"kind": "resize_short", "size": 3}], "Expected the parameters of step 'resize_short', got {'size': 3}"),
        (
            [{"kind": "resize_short", "size_px": 0}],
            "Expected `size_px` of resize_short to be a whole number of at least 1",
        ),
        ([{"kind": "resize_short", "size_px": 2.5}], "whole number of at least 1, got 2.5"),
        ([{"kind": "center_crop", "height_px": 3, "width_px": 3, "pad": "edge"}], "Unknown padding 'edge'"),
    ],
)
def test_wrong_json_is_explained(value, text):
    with pytest.raises(ConfigError) as caught:
        Preprocess.from_json(value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_rgb_image_is_refused(image):
    with pytest.raises(ConfigError, match=r"Expected a decoded image, uint8 of shape \(height, width, 3\), got"):
        Preprocess()(image)


def test_unknown_kernel_is_explained():
    with pytest.raises(ConfigError, match="Unknown resize kernel 'bicubik': did you mean 'bicubic'"):
        resize(noise(4, 4), 2, 2, "bicubik")
