"""Conformance of every perturbation in the registry, and the rules that hold for all of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from forgery_det.core.errors import ConfigError, ImageError, UnknownNameError
from forgery_det.transforms import perturb as perturb_module
from forgery_det.transforms.perturb import PERTURBATIONS, Perturbation, image_rng, perturb
from forgery_det.transforms.perturb_resize import DOWN_FACTORS, UP_FACTORS

ALL = [(name, severity) for name in PERTURBATIONS for severity in PERTURBATIONS.get(name).severities]
LAST = [(name, len(PERTURBATIONS.get(name).steps)) for name in PERTURBATIONS]
RANDOM = {"colour_cast", "crop_random", "noise", "overlay_text", "recapture"}
SAME_SIZE_AND_STRONGER = [
    "avif", "blur", "colour_cast", "contrast_less", "gamma_darker", "gamma_lighter", "jpeg", "noise", "overlay_text",
    "saturation_less", "saturation_more", "webp", "recapture", "social_feed",
]  # fmt: skip


def photo(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Smooth shapes, edges and fine noise, in colour, as a photograph has them."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(height, width, 3)), (6, 6, 0)) * 900
    edges = gaussian_filter(rng.normal(size=(height, width)), 5)[..., None] > 0.02
    return np.clip(np.rint(120 + smooth + 50 * edges + rng.normal(0, 3, smooth.shape)), 0, 255).astype(np.uint8)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


@pytest.mark.parametrize(("name", "severity"), ALL)
def test_the_same_image_id_gives_the_same_copy_and_the_input_is_untouched(name, severity):
    image = photo()
    before = image.copy()
    first = perturb(image, name, severity, "an image")
    np.random.default_rng(5).random()
    again = perturb(image.copy(), name, severity, "an image")
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)
    assert first.shape != image.shape or (first != image).any()


@pytest.mark.parametrize(("name", "severity"), LAST)
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (2, 3)])
def test_tiny_images_are_taken(name, severity, size):
    result = perturb(photo(*size), name, severity, "tiny")
    assert result.dtype == np.uint8
    assert min(result.shape[:2]) >= 1


@pytest.mark.parametrize(("name", "severity"), LAST)
def test_a_strip_of_8000_px_is_taken(name, severity):
    image = np.tile(photo(4, 80), (1, 100, 1))
    assert image.shape == (4, 8000, 3)
    assert min(perturb(image, name, severity, "wide").shape[:2]) >= 1


@pytest.mark.parametrize(("name", "severity"), LAST)
def test_grey_content_is_taken_and_stays_grey_unless_colour_is_added(name, severity):
    grey = np.repeat(photo()[..., :1], 3, axis=2)
    result = perturb(grey, name, severity, "grey").astype(int)
    spread = np.ptp(result, axis=2).max()
    if name not in {"colour_cast", "noise", "recapture"}:
        # Codecs store luma and chroma apart; grey has no chroma, and comes back within rounding.
        assert spread <= 2


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_chance_comes_from_image_id_name_and_severity_alone(name):
    perturbation, image = PERTURBATIONS.get(name), photo()
    severity = len(perturbation.steps)
    copies = [perturb(image, name, severity, image_id) for image_id in ("a", "b", "c")]
    backwards = [perturb(image, name, severity, image_id) for image_id in ("c", "b", "a")][::-1]
    for one, other in zip(copies, backwards, strict=True):
        np.testing.assert_array_equal(one, other)
    differ = any(one.shape != copies[0].shape or (one != copies[0]).any() for one in copies[1:])
    assert differ == (name in RANDOM)


def test_seeds_differ_between_images_perturbations_and_severities():
    drawn = {
        image_rng(image_id, name, severity).integers(2**62)
        for image_id in ("a", "b", "ab") for name in ("noise", "recapture") for severity in (1, 2)
    }  # fmt: skip
    assert len(drawn) == 12


@pytest.mark.parametrize("name", SAME_SIZE_AND_STRONGER)
def test_a_higher_severity_is_further_from_the_image(name):
    image = photo()
    values = [psnr(perturb(image, name, severity, "photo"), image) for severity in PERTURBATIONS.get(name).severities]
    # 720 px and more change no 128 px image, so only the qualities of social_feed count here.
    assert all(b < a for a, b in pairwise(values)), values


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_name_family_and_words(name):
    perturbation = PERTURBATIONS.get(name)
    assert isinstance(perturbation, Perturbation)
    assert perturbation.name == name
    assert perturbation.summary
    words = [perturbation.describe(severity) for severity in perturbation.severities]
    assert len(set(words)) == len(words)
    assert list(perturbation.severities) == list(range(1, len(words) + 1))


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resizing_gives_the_sizes_of_the_factors(kernel):
    image = photo(60, 101)
    for direction, factors in (("downscale", DOWN_FACTORS), ("upscale", UP_FACTORS)):
        for severity, factor in enumerate(factors, start=1):
            result = perturb(image, f"{direction}_{kernel}", severity, "x")
            assert result.shape == (round(60 * factor), round(101 * factor), 3)


def test_unknown_names_and_severities_are_explained():
    with pytest.raises(UnknownNameError, match="Unknown perturbation 'jpg': did you mean 'jpeg'"):
        perturb(photo(), "jpg", 1, "x")
    for wrong in (0, 9, True, "2"):
        with pytest.raises(ConfigError, match=r"Expected a severity of 'jpeg' in \[1, 8\], got"):
            perturb(photo(), "jpeg", wrong, "x")
    with pytest.raises(
        ConfigError, match=r"Expected a decoded image, uint8 of shape \(height, width, 3\), got float64"
    ):
        perturb(photo().astype(float), "hflip", 1, "x")


def test_a_copy_that_is_too_large_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(perturb_module, "MAX_PIXELS", 96 * 128 * 2)
    assert perturb(photo(), "upscale_bicubic", 2, "x").shape == (120, 160, 3)
    with pytest.raises(
        ImageError, match=r"too_many_pixels: Expected a perturbed copy of at most 24576 pixels, got 256"
    ):
        perturb(photo(), "upscale_bicubic", 4, "x")


def test_a_size_that_a_codec_cannot_hold_is_refused_by_name():
    with pytest.raises(ImageError, match="cannot_encode: Expected a size that WEBP can hold, got 16384 x 1 px"):
        perturb(np.zeros((1, 16384, 3), np.uint8), "webp", 1, "x")
