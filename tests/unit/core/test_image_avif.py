"""AVIF rules: libavif through Pillow is the reference."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_image, read_facts

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")

EXIF = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
RNG = np.random.default_rng(13)
RGBA_8 = np.asarray(Image.fromarray(RNG.integers(0, 256, (4, 5, 4), dtype=np.uint8)).resize((30, 22)))
RGB_8 = np.ascontiguousarray(RGBA_8[..., :3])


def avif(pixels: np.ndarray = RGB_8, **settings: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "AVIF", **{"quality": 70, "speed": 10, "max_threads": 1, **settings})
    return target.getvalue()


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    exact = (colour.astype(float) * alpha + 255.0 * (255 - alpha.astype(float))) / 255
    return np.rint(exact).astype(np.uint8)


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4", "4:0:0"])
def test_avif_pixels_equal_pillows(subsampling: str) -> None:
    data = avif(subsampling=subsampling)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, expected)
    facts = decoded.facts
    mode = "L" if subsampling == "4:0:0" else "RGB"
    assert (facts.codec, facts.mode, facts.bit_depth, facts.notes) == ("avif", mode, 8, ())


def test_avif_alpha_is_laid_over_white() -> None:
    data = avif(RGBA_8)
    with Image.open(io.BytesIO(data)) as image:
        rgba = np.asarray(image)
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, over_white(rgba[..., :3], rgba[..., 3:]))
    assert decoded.facts.notes == ("alpha_composited",)


def test_avif_animation_gives_the_first_frame() -> None:
    frames = [Image.fromarray(RGB_8), Image.fromarray(255 - RGB_8)]
    target = io.BytesIO()
    frames[0].save(target, "AVIF", save_all=True, append_images=frames[1:], quality=90, speed=10, max_threads=1)
    with Image.open(io.BytesIO(target.getvalue())) as image:
        expected = np.asarray(image.convert("RGB"))
    decoded = decode_image(target.getvalue())
    np.testing.assert_array_equal(decoded.image_HWC, expected)
    assert decoded.facts.notes == ("first_frame_of_2",)


def test_avif_every_prefix_is_refused() -> None:
    data = avif(quality=20, exif=EXIF)
    for length in range(1, len(data)):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length])
        assert refusal.value.reason == "truncated" or length < 16, (length, refusal.value)


def test_avif_broken_exif_changes_nothing() -> None:
    data = avif(exif=EXIF).replace(EXIF[6:], b"MM\0*" + b"\xff" * (len(EXIF) - 10))
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, decode_image(avif()).image_HWC)
    assert decoded.facts.has_exif
    assert decoded.facts.orientation == 1


def test_avif_icc_is_noted() -> None:
    assert "icc_ignored" in read_facts(avif(icc_profile=b"\0" * 300)).notes


def test_avif_bit_depth_is_read_from_the_configuration() -> None:
    data = bytearray(avif())
    flags, depths = data.index(b"av1C") + 6, data.index(b"pixi") + 9
    data[flags] |= 0x40
    data[depths : depths + 3] = b"\x0a" * 3
    facts = read_facts(bytes(data))
    assert facts.bit_depth == 10
    assert facts.notes == ("converted_10_bit",)


def test_avif_that_claims_a_huge_size_is_refused_by_its_header() -> None:
    data = bytearray(avif())
    at = data.index(b"ispe") + 8
    struct.pack_into(">II", data, at, 100_000, 100_000)
    with pytest.raises(ImageError) as refusal:
        decode_image(bytes(data))
    assert refusal.value.reason == "side_too_long"


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


FTYP = box(b"ftyp", b"avif\0\0\0\0avifmif1")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (FTYP, "truncated"),
        (FTYP + b"\0\0\0\x04meta", "corrupt"),
        (FTYP + b"\0\0\0\x01mdat" + struct.pack(">Q", 2**63), "truncated"),
        (FTYP + box(b"free", b"") * 20_001, "corrupt"),
        (FTYP + b"".join(struct.pack(">I", 80_008 - 8 * depth) + b"moov" for depth in range(10_001)), "corrupt"),
        (box(b"ftyp", b"heic\0\0\0\0mif1heic"), "unsupported_format"),
        (box(b"ftyp", b"mif1\0\0\0\0mif1avif") + box(b"mdat", b"1234"), "truncated"),
    ],
)
def test_avif_structure_errors_have_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as refusal:
        decode_image(data)
    assert refusal.value.reason == reason
    assert refusal.value.detail.startswith("Expected ")
