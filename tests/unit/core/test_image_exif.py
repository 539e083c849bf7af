"""Orientation 1 to 8 in every codec that carries one, against Pillow's own transpose."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from forgery_det.core.image_exif import apply_orientation, read_orientation
from forgery_det.core.image_io import decode_image

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 9, 3), dtype=np.uint8)


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "a maker whose name is longer than four bytes"
    exif[0x0112] = orientation
    return exif


def rotated(codec: str, orientation: int) -> bytes:
    target = io.BytesIO()
    if codec == "TIFF":
        Image.fromarray(PIXELS).save(target, codec, tiffinfo={0x0112: orientation})
    else:
        Image.fromarray(PIXELS).save(target, codec, exif=exif_with(orientation))
    return target.getvalue()


@pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_equals_pillows_transpose(codec: str, orientation: int) -> None:
    data = rotated(codec, orientation)
    decoded = decode_image(data)
    with Image.open(io.BytesIO(data)) as image:
        # Pillow turns TIFF by itself while loading.
        expected = image.convert("RGB") if codec == "TIFF" else ImageOps.exif_transpose(image).convert("RGB")
    np.testing.assert_array_equal(decoded.image_HWC, np.asarray(expected))
    assert decoded.image_HWC.flags.c_contiguous
    assert (decoded.facts.height_px, decoded.facts.width_px) == decoded.image_HWC.shape[:2]
    assert decoded.facts.orientation == orientation
    assert (f"orientation_{orientation}_applied" in decoded.facts.notes) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_apply_orientation_on_numbered_pixels(orientation: int) -> None:
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.swapaxes(a, 0, 1),
        6: lambda a: np.fliplr(np.swapaxes(a, 0, 1)),
        7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
        8: lambda a: np.flipud(np.swapaxes(a, 0, 1)),
    }
    np.testing.assert_array_equal(apply_orientation(PIXELS, orientation), turns[orientation](PIXELS))


@pytest.mark.parametrize("value", [0, 9, 4000])
def test_orientation_out_of_range_is_not_applied(value: int) -> None:
    assert read_orientation(exif_with(value).tobytes()) == 1


@pytest.mark.parametrize("endian", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders(endian: str) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = 8
    assert read_orientation(exif.tobytes()) == 8


def test_orientation_of_cut_exif_is_1() -> None:
    block = exif_with(6).tobytes()
    assert read_orientation(block) == 6
    assert {read_orientation(block[:length]) for length in range(len(block))} <= {1, 6}
