"""The encoder: fixed settings, no metadata, refusals that teach."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image, encode_image, read_facts

PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((64, 48))
)


@pytest.mark.parametrize(
    ("codec", "quality"), [("jpeg", 75), ("webp", 80), ("webp", 0), ("webp", None), ("avif", 60), ("png", None)]
)
def test_encode_is_deterministic_and_decodes_to_the_codec(codec: str, quality: int | None) -> None:
    data = encode_image(PIXELS, codec, quality)
    assert data == encode_image(PIXELS.copy(), codec, quality)
    assert data == encode_image(np.asfortranarray(PIXELS), codec, quality)
    facts = read_facts(data)
    assert (facts.codec, facts.width_px, facts.height_px) == (codec, 64, 48)
    assert (facts.has_exif, facts.has_icc, facts.has_alpha) == (False, False, False)


def test_encode_jpeg_is_baseline_420_at_the_quality_asked_for() -> None:
    for quality in (1, 30, 75, 95, 100):
        facts = read_facts(encode_image(PIXELS, "jpeg", quality))
        assert (facts.jpeg_quality, facts.chroma_subsampling, facts.progressive) == (quality, "4:2:0", False)


def test_encode_jpeg_equals_pillows_writer() -> None:
    target = io.BytesIO()
    Image.fromarray(PIXELS).save(target, "JPEG", quality=60, subsampling=2)
    assert encode_image(PIXELS, "jpeg", 60) == target.getvalue()


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_encode_without_quality_is_lossless(codec: str) -> None:
    np.testing.assert_array_equal(decode_image(encode_image(PIXELS, codec, None)).image_HWC, PIXELS)


@pytest.mark.parametrize(("codec", "most"), [("jpeg", 12), ("webp", 12), ("avif", 12)])
def test_encode_at_high_quality_stays_close(codec: str, most: float) -> None:
    decoded = decode_image(encode_image(PIXELS, codec, 95)).image_HWC
    assert np.abs(decoded.astype(int) - PIXELS).mean() < most


@pytest.mark.parametrize(
    ("codec", "quality", "text"),
    [
        ("bmp", None, "Expected `codec` to be one of avif, jpeg, png, webp, got 'bmp'."),
        ("jpeg", 120, "Expected `quality` in [1, 100] for jpeg, got 120."),
        ("jpeg", 0, "Expected `quality` in [1, 100] for jpeg, got 0."),
        ("jpeg", None, "Expected `quality` in [1, 100] for jpeg, got None."),
        ("avif", None, "Expected `quality` in [0, 100] for avif, got None."),
        ("webp", -1, "Expected `quality` in [0, 100] for webp, got -1."),
        ("webp", True, "Expected `quality` in [0, 100] for webp, got True."),
        ("png", 90, "Expected `quality` to be None for png, got 90."),
    ],
)
def test_encode_refuses_settings(codec: str, quality: int | None, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(text)}$"):
        encode_image(PIXELS, codec, quality)


@pytest.mark.parametrize(
    "pixels",
    [PIXELS.astype(np.float32), PIXELS[..., 0], np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_encode_refuses_other_arrays(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError, match="not_rgb_uint8: Expected RGB uint8 of shape"):
        encode_image(pixels, "png", None)


def test_encode_names_a_size_that_the_codec_cannot_hold() -> None:
    with pytest.raises(ImageError, match="cannot_encode: Expected a size that WEBP can hold, got 16384 x 1 px"):
        encode_image(np.zeros((1, 16384, 3), np.uint8), "webp", 80)
