"""WebP rules: libwebp through Pillow is the reference; container cases are built by hand."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_image, read_facts

RNG = np.random.default_rng(9)
RGBA_8 = RNG.integers(0, 256, (11, 14, 4), dtype=np.uint8)
RGB_8 = np.ascontiguousarray(RGBA_8[..., :3])


def webp(pixels: np.ndarray = RGB_8, **settings: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "WEBP", **settings)
    return target.getvalue()


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    exact = (colour.astype(float) * alpha + 255.0 * (255 - alpha.astype(float))) / 255
    return np.rint(exact).astype(np.uint8)


@pytest.mark.parametrize("quality", [5, 80, 100])
def test_webp_lossy_pixels_equal_pillows(quality: int) -> None:
    data = webp(quality=quality)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, expected)
    assert (decoded.facts.mode, decoded.facts.has_alpha, decoded.facts.notes) == ("RGB", False, ())


def test_webp_lossless_is_exact_and_noted() -> None:
    decoded = decode_image(webp(lossless=True))
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.notes == ("webp_lossless",)


def test_webp_alpha_is_laid_over_white() -> None:
    decoded = decode_image(webp(RGBA_8, lossless=True, exact=True))
    np.testing.assert_array_equal(decoded.image_HWC, over_white(RGBA_8[..., :3], RGBA_8[..., 3:]))
    assert decoded.facts.has_alpha
    lossy = webp(RGBA_8, quality=60)
    with Image.open(io.BytesIO(lossy)) as image:
        rgba = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(decode_image(lossy).image_HWC, over_white(rgba[..., :3], rgba[..., 3:]))


def test_webp_animation_gives_the_first_frame() -> None:
    frames = [Image.fromarray(RGB_8), Image.fromarray(255 - RGB_8), Image.fromarray(RGB_8 // 3)]
    target = io.BytesIO()
    frames[0].save(target, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    decoded = decode_image(target.getvalue())
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.n_frames == 3
    assert "first_frame_of_3" in decoded.facts.notes


def test_webp_icc_and_exif_are_noted_and_ignored() -> None:
    decoded = decode_image(webp(lossless=True, icc_profile=b"\0" * 99, exif=b"Exif\0\0 broken"))
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.has_icc
    assert decoded.facts.has_exif
    assert decoded.facts.notes == ("icc_ignored", "webp_lossless")


@pytest.mark.parametrize("settings", [{"quality": 50}, {"lossless": True}, {"quality": 50, "exif": b"Exif\0\0MM\0*"}])
def test_webp_every_prefix_is_refused_as_truncated(settings: dict[str, object]) -> None:
    data = webp(**settings)
    for length in range(1, len(data)):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length])
        assert refusal.value.reason in ("truncated", "not_an_image"), length
        assert refusal.value.reason == "truncated" or length < 12


def test_webp_with_lost_data_and_a_mended_header_is_refused() -> None:
    data = webp(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), quality=90)
    half = len(data) // 2 & ~1
    mended = b"RIFF" + struct.pack("<I", half - 8) + data[8:16] + struct.pack("<I", half - 20) + data[20:half]
    with pytest.raises(ImageError) as refusal:
        decode_image(mended)
    assert refusal.value.reason in ("corrupt", "truncated")


def test_webp_bytes_after_the_container_are_ignored() -> None:
    np.testing.assert_array_equal(decode_image(webp(lossless=True) + b"tail").image_HWC, RGB_8)


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (riff(), "corrupt"),
        (riff(chunk(b"JUNK", b"1234567890")), "unsupported_variant"),
        (riff(chunk(b"VP8 ", b"12")), "unsupported_variant"),
        (riff(chunk(b"VP8X", b"\0\0\0\0" + b"\xff\xff\xff" * 2)), "side_too_long"),
        (riff(chunk(b"VP8X", b"\0\0\0\0" + b"\x1f\x4e\0" * 2)), "too_many_pixels"),
        (riff(chunk(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + bytes(4))), "zero_size"),
        (riff(chunk(b"VP8X", bytes(10))), "corrupt"),
        (riff(*[chunk(b"XMP ", b"")] * 100_001), "corrupt"),
    ],
)
def test_webp_structure_errors_have_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as refusal:
        decode_image(data)
    assert refusal.value.reason == reason
    assert refusal.value.detail.startswith("Expected ")


def test_webp_obeys_pillows_own_ceiling_instead_of_letting_it_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(
        ImageError, match=r"Expected at most 100 pixels \(2 x PIL.Image.MAX_IMAGE_PIXELS\), got 14 x 11"
    ):
        read_facts(webp())
