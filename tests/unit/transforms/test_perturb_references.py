"""Single perturbations against what they should do, computed in another way."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.fft import fft2
from PIL import Image

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.transforms.perturb import PERTURBATIONS, image_rng, perturb
from forgery_det.transforms.perturb_recapture import _perspective


def ramp(height: int = 64, width: int = 80) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 3, (x + y) * 1.5], axis=-1).astype(np.uint8)


def test_jpeg_is_what_pillow_reads_back_at_that_quality():
    buffer = io.BytesIO()
    Image.fromarray(ramp()).save(buffer, "jpeg", quality=70, subsampling="4:2:0")
    np.testing.assert_array_equal(perturb(ramp(), "jpeg", 4, "x"), np.asarray(Image.open(buffer)))


def test_blur_is_a_convolution_with_a_gaussian():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    sigma = PERTURBATIONS.get("blur").parameters(4)["sigma_px"]
    y, x = np.mgrid[-20:21, -20:21]
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    expected = np.rint(255 * kernel / kernel.sum())
    np.testing.assert_allclose(perturb(image, "blur", 4, "x")[..., 1], expected, atol=1)


def test_noise_has_the_stated_spread_and_no_bias():
    flat = np.full((200, 200, 3), 128, np.uint8)
    for severity, parameters in PERTURBATIONS.get("noise").severities.items():
        change = perturb(flat, "noise", severity, "x").astype(float) - 128
        assert change.std() == pytest.approx(np.hypot(parameters["sigma"], 12**-0.5), rel=0.02)
        assert abs(change.mean()) < 4 * parameters["sigma"] / flat.size**0.5


def test_gamma_follows_its_formula():
    image = ramp()
    expected = np.rint(255 * (image / 255) ** 2.0)
    np.testing.assert_array_equal(perturb(image, "gamma_darker", 3, "x"), expected)


def test_a_colour_cast_keeps_the_geometric_mean_of_the_gains():
    flat = np.full((2, 2, 3), 100, np.uint8)
    gains = perturb(flat, "colour_cast", 2, "x")[0, 0] / 100
    assert np.prod(gains) == pytest.approx(1.0, abs=0.02)
    assert np.linalg.norm(np.log2(gains)) == pytest.approx(0.2, abs=0.02)


def test_saturation_zero_is_luma_and_contrast_moves_to_the_mean():
    image = ramp()
    luma = np.asarray(Image.fromarray(image).convert("L"))
    np.testing.assert_array_equal(perturb(image, "saturation_less", 4, "x"), np.repeat(luma[..., None], 3, axis=2))
    less = perturb(image, "contrast_less", 4, "x").astype(float)
    np.testing.assert_allclose(less, luma.mean() + 0.25 * (image - luma.mean()), atol=1.5)


def test_crops_cut_and_move_nothing():
    image = ramp(100, 120)
    np.testing.assert_array_equal(perturb(image, "crop_centre", 4, "x"), image[25:75, 30:90])
    places = set()
    for image_id in "abcdef":
        part = perturb(image, "crop_random", 3, image_id)
        assert part.shape == (75, 90, 3)
        left, top = part[0, 0, 0] // 3, part[0, 0, 1] // 3
        np.testing.assert_array_equal(part, image[top : top + 75, left : left + 90])
        places.add((left, top))
    assert len(places) > 3


def test_flips_and_turns():
    image = ramp()
    np.testing.assert_array_equal(perturb(image, "hflip", 1, "x"), np.asarray(Image.fromarray(image).transpose(0)))
    np.testing.assert_array_equal(perturb(image, "vflip", 1, "x"), np.asarray(Image.fromarray(image).transpose(1)))
    turned = image
    for severity in (1, 2, 3):
        turned = np.asarray(Image.fromarray(turned).transpose(Image.Transpose.ROTATE_90))
        np.testing.assert_array_equal(perturb(image, "rot90", severity, "x"), turned)


def test_a_caption_is_at_the_bottom_and_leaves_the_middle_alone():
    image = np.full((200, 300, 3), 90, np.uint8)
    one, two = perturb(image, "overlay_text", 1, "x"), perturb(image, "overlay_text", 2, "x")
    assert (one[:150] == 90).all()
    assert one[180:].max() > 200
    assert one[180:].min() < 20
    assert (two[:30] != 90).any()
    assert (two[60:140] == 90).all()


def test_chains_limit_the_long_side_only_where_it_is_longer():
    wide = np.tile(ramp(8, 100), (1, 25, 1))
    assert perturb(wide, "social_feed", 1, "x").shape == (7, 2048, 3)
    assert perturb(wide, "social_feed", 4, "x").shape == (2, 720, 3)
    assert perturb(wide, "messenger", 3, "x").shape == (2, 640, 3)
    assert perturb(ramp(), "social_feed", 4, "x").shape == ramp().shape
    assert perturb(ramp(), "screenshot", 3, "x").shape == (32, 40, 3)


def test_a_recaptured_screen_has_stripes():
    flat = np.full((256, 256, 3), 120, np.uint8)
    spectrum = np.abs(fft2(perturb(flat, "recapture", 3, "x")[..., 0].astype(float) - 120))
    spectrum[0, 0] = 0
    y, x = np.unravel_index(np.argmax(spectrum), spectrum.shape)
    beat_px = 256 / np.hypot(min(y, 256 - y), min(x, 256 - x))
    assert spectrum.max() > 20 * np.median(spectrum)
    assert 5 < beat_px < 22


def test_the_perspective_takes_each_corner_where_it_should():
    corners = np.array([[0, 0], [80, 0], [80, 60], [0, 60]], dtype=float)
    seen = np.array([[3, 2], [77, 1], [79, 58], [1, 57]], dtype=float)
    a, b, c, d, e, f, g, h = _perspective(corners, seen)
    for (x, y), expected in zip(corners, seen, strict=True):
        scale = g * x + h * y + 1
        np.testing.assert_allclose([(a * x + b * y + c) / scale, (d * x + e * y + f) / scale], expected, atol=1e-9)


def test_a_tilted_screen_shows_nothing_from_outside_of_the_image():
    white = np.full((64, 64, 3), 255, np.uint8)
    for image_id in "abcd":
        # Only the moire and the tone curve darken; the fill outside of an image would be black.
        assert perturb(white, "recapture", 2, image_id).min() > 180


GOLDEN = {
    ("gamma_lighter", 2): "9811e76e8671e5ec",
    ("crop_random", 4): "d43592f5d4dfd315",
    ("colour_cast", 3): "c857fb1661b8f4c6",
    ("rot90", 1): "125c37b2d9ea02c0",
    ("downscale_nearest", 3): "f8dc144b95913f27",
}


@pytest.mark.parametrize(("name", "severity"), GOLDEN)
def test_exact_arithmetic_stays_what_it_was(name, severity):
    assert sha256_bytes(perturb(ramp(), name, severity, "golden").tobytes())[:16] == GOLDEN[name, severity]


def test_the_seed_of_an_image_stays_what_it_was():
    assert image_rng("golden", "noise", 1).integers(2**32, size=2).tolist() == [1183769502, 3380284824]
