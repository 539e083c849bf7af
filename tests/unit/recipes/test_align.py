from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image, read_facts
from forgery_det.recipes.align import align_image, aligned_size
from forgery_det.recipes.recipe import AlignPolicy

LOSSLESS = {"codec": "png", "quality": None}


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_pixels_are_pillows_own_resize() -> None:
    image = photo(90, 120)
    data = align_image(image, AlignPolicy(60, None, kernel="bicubic", **LOSSLESS))
    expected = Image.fromarray(image).resize((80, 60), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(expected))


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = photo(60, 80)
    assert np.array_equal(decode_image(align_image(image, AlignPolicy(60, None, **LOSSLESS))).image_HWC, image)


@pytest.mark.parametrize(
    ("size", "policy", "expected"),
    [
        ((600, 1200), (300, None), (300, 600)),
        ((1200, 600), (300, None), (600, 300)),
        ((600, 1200), (300, 500), (250, 500)),
        ((600, 1200), (None, 500), (250, 500)),
        ((600, 1200), (None, None), (600, 1200)),
        ((301, 400), (300, None), (300, 399)),
        ((300, 300), (300, 300), (300, 300)),
    ],
)
def test_size_policy(size: tuple[int, int], policy: tuple[int | None, int | None], expected: tuple[int, int]) -> None:
    assert aligned_size(*size, AlignPolicy(*policy)) == expected


def test_nothing_is_enlarged() -> None:
    with pytest.raises(ImageError, match=r"too_small: Expected a short side of at least 300 px .* got 400 x 299 px"):
        align_image(photo(299, 400), AlignPolicy(300, None))
    assert aligned_size(100, 200, AlignPolicy(None, 500)) == (100, 200)


@pytest.mark.parametrize(("codec", "quality"), [("webp", 90), ("jpeg", 85), ("png", None)])
def test_bytes_are_the_same_every_time_and_bear_the_codec(codec: str, quality: int | None) -> None:
    policy = AlignPolicy(48, None, codec=codec, quality=quality)
    data = align_image(photo(64, 64), policy)
    facts = read_facts(data)
    assert data == align_image(photo(64, 64), policy)
    assert (facts.codec, facts.width_px, facts.height_px) == (codec, 48, 48)


def test_wrong_policies_are_told() -> None:
    with pytest.raises(ConfigError, match=r"Unknown kernel 'lanczoz': did you mean 'lanczos'"):
        align_image(photo(64, 64), AlignPolicy(48, None, kernel="lanczoz"))
    with pytest.raises(ConfigError, match=r"Expected `max_side_px` of at least 1, got 0 \(align of the recipe\)\."):
        aligned_size(10, 10, AlignPolicy(None, 0))
