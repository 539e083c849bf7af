"""Damaged files of every codec give pixels of the stated shape or an `ImageError`, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import DecodeLimits, decode_image, read_facts

LIMITS = DecodeLimits(max_pixels=100_000)


def seeds() -> dict[str, bytes]:
    pixels = np.random.default_rng(6).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    rgb, rgba = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    cases: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif, "icc_profile": b"\0" * 40}),
        "jpeg_progressive_cmyk": (rgb.convert("CMYK"), "JPEG", {"progressive": True}),
        "png": (rgba, "PNG", {"exif": exif}),
        "png_palette": (rgb.convert("P"), "PNG", {"transparency": 3}),
        "apng": (rgb, "PNG", {"save_all": True, "append_images": [rgba.convert("RGB").rotate(180)]}),
        "gif": (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(180)], "transparency": 1}),
        "webp": (rgb, "WEBP", {"quality": 70, "exif": exif}),
        "webp_animated": (rgba, "WEBP", {"save_all": True, "append_images": [rgba.rotate(180)], "lossless": True}),
        "tiff": (rgb, "TIFF", {}),
        "tiff_lzw": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "tiff_deflate_16": (Image.fromarray(pixels[..., 0].astype(np.uint16)), "TIFF", {"compression": "tiff_deflate"}),
    }
    if features.check("avif"):
        cases["avif"] = (rgba, "AVIF", {"quality": 50, "speed": 10, "max_threads": 1, "exif": exif})
        cases["avif_animated"] = (rgb, "AVIF", {"save_all": True, "append_images": [rgb.rotate(180)], "speed": 10})
    files = {}
    for name, (image, codec, options) in cases.items():
        target = io.BytesIO()
        image.save(target, codec, **options)
        files[name] = target.getvalue()
    return files


SEEDS = seeds()


def with_good_checksums(data: bytes) -> bytes:
    """Mend the checksums of a damaged PNG, so that the damage gets past them."""
    mended, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        body = data[position + 4 : position + 8 + length]
        if position + 12 + length > len(data):
            break
        mended += data[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return mended + data[position:]


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    data = bytearray(SEEDS[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["flip", "byte", "cut", "splice", "drop", "double", "number"]))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and data:
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del data[at:]
        elif kind == "splice":
            other = SEEDS[draw(st.sampled_from(sorted(SEEDS)))]
            start = draw(st.integers(0, len(other) - 1))
            data[at:at] = other[start : start + draw(st.integers(1, 60))]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 20))]
        elif kind == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        else:
            data[at : at + 4] = draw(
                st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x80\0"])
            )
    result = bytes(data)
    return with_good_checksums(result) if "png" in name and draw(st.booleans()) else result


def outcome(data: bytes) -> np.ndarray | str:
    """Return the pixels, or the refusal's reason."""
    try:
        decoded = decode_image(data, LIMITS)
    except ImageError as refusal:
        # A warning here would be one that leaks where warnings are not errors.
        assert not isinstance(refusal.__cause__, Warning), refusal  # noqa: PT017 - both branches are legitimate
        assert refusal.detail.startswith("Expected ")  # noqa: PT017 - the same
        return refusal.reason
    image = decoded.image_HWC
    assert image.shape == (decoded.facts.height_px, decoded.facts.width_px, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert decoded.facts == read_facts(data, LIMITS)
    return image


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_damaged_files_decode_or_are_refused(name: str) -> None:
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(name))
    def run(data: bytes) -> None:
        plain = outcome(data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
            np.testing.assert_array_equal(outcome(data), plain)

    run()


@settings(max_examples=150, deadline=None, database=None)
@given(st.binary(max_size=200), st.sampled_from(sorted({data[:12] for data in SEEDS.values()} | {b""})))
def test_noise_behind_a_signature_is_refused(noise: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(start + noise, LIMITS)


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_undamaged_seeds_decode(name: str) -> None:
    assert decode_image(SEEDS[name], LIMITS).facts.codec == name.split("_")[0].replace("apng", "png")
