"""JPEG rules, each against a direct Pillow computation or a formula written out here."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_image, estimate_jpeg_quality, read_facts

RNG_PIXELS = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PHOTO = np.asarray(Image.fromarray(RNG_PIXELS).resize((61, 43), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray = PHOTO, mode: str = "RGB", **settings: object) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(target, "JPEG", **settings)
    return target.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def insert_after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_equal_pillows(mode: str, progressive: bool) -> None:
    data = jpeg(mode=mode, quality=83, progressive=progressive)
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, by_pillow(data))
    assert (decoded.facts.mode, decoded.facts.progressive) == (mode, progressive)
    assert ("cmyk_converted" in decoded.facts.notes) == (mode == "CMYK")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (17, 33), (64, 16), (257, 3)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [3, 60, 100])
def test_jpeg_odd_sizes_decode_though_the_end_marker_is_withheld(
    width: int, height: int, subsampling: int, quality: int
) -> None:
    for pixels in (np.resize(RNG_PIXELS, (height, width, 3)), np.full((height, width, 3), 90, np.uint8)):
        for restart in (0, 1):
            data = jpeg(pixels, quality=quality, subsampling=subsampling, restart_marker_blocks=restart)
            np.testing.assert_array_equal(decode_image(data).image_HWC, by_pillow(data))


def test_jpeg_cmyk_follows_the_stated_formula() -> None:
    data = jpeg(mode="CMYK", quality=100)
    with Image.open(io.BytesIO(data)) as image:
        inks = np.asarray(image).astype(np.int64)
    light = 255 - inks[..., 3:]
    expected = light - (light * inks[..., :3] + 127) // 255
    np.testing.assert_array_equal(decode_image(data).image_HWC, expected)


def test_jpeg_ycck_is_turned_to_cmyk_first() -> None:
    cmyk = jpeg(mode="CMYK", quality=100, subsampling=0)
    place = cmyk.index(b"Adobe") + 11
    assert cmyk[place] == 0
    ycck = cmyk[:place] + b"\x02" + cmyk[place + 1 :]
    with Image.open(io.BytesIO(cmyk)) as image:
        # Pillow shows Adobe's inverted samples; the stored ones are 255 minus these.
        y, cb, cr, k = np.moveaxis(255.0 - np.asarray(image).astype(float), 2, 0)
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)
    # libjpeg: C = 255 - R; Pillow inverts all four; so ink = R, and black ink = 255 - stored K.
    inks = np.clip(np.stack([red, green, blue], axis=-1), 0, 255)
    light = k[..., None]
    expected = light - light * inks / 255
    assert np.abs(decode_image(ycck).image_HWC - expected).max() <= 1.5


def test_jpeg_quality_is_read_back_exactly_for_every_setting() -> None:
    assert [read_facts(jpeg(quality=quality)).jpeg_quality for quality in range(1, 101)] == list(range(1, 101))


def test_jpeg_quality_of_pillows_own_table_reading() -> None:
    with Image.open(io.BytesIO(jpeg(quality=37))) as image:
        assert estimate_jpeg_quality(image.quantization[0]) == 37


def test_jpeg_quality_of_foreign_tables_is_the_nearest_and_noted() -> None:
    table = [2 + index // 16 for index in range(64)]
    facts = read_facts(jpeg(qtables=[table]))
    assert facts.jpeg_quality == estimate_jpeg_quality(table)
    assert 90 <= facts.jpeg_quality <= 99
    assert facts.notes == ("nonstandard_jpeg_tables",)


@pytest.mark.parametrize("table", [[0] * 64, [1] * 63])
def test_jpeg_quality_refuses_impossible_tables(table: list[int]) -> None:
    with pytest.raises(ImageError, match="Expected 64 quantisation steps of at least 1, got"):
        estimate_jpeg_quality(table)


@pytest.mark.parametrize(("setting", "name"), [("4:4:4", "4:4:4"), ("4:2:2", "4:2:2"), ("4:2:0", "4:2:0")])
def test_jpeg_subsampling_is_named(setting: str, name: str) -> None:
    assert read_facts(jpeg(subsampling=setting)).chroma_subsampling == name


@pytest.mark.parametrize(
    ("luma_factors", "name"), [(0x41, "4:1:1"), (0x42, "4:1:0"), (0x12, "4:4:0"), (0x31, "3x1:1x1")]
)
def test_jpeg_rare_subsampling_is_named(luma_factors: int, name: str) -> None:
    data = bytearray(jpeg(subsampling=0))
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = luma_factors
    assert read_facts(bytes(data)).chroma_subsampling == name


def test_jpeg_grey_has_no_chroma() -> None:
    assert read_facts(jpeg(mode="L")).chroma_subsampling == "4:0:0"


def test_jpeg_phone_file_with_two_pictures_gives_the_first() -> None:
    target = io.BytesIO()
    Image.fromarray(PHOTO).save(target, "MPO", save_all=True, append_images=[Image.fromarray(255 - PHOTO)], quality=95)
    decoded = decode_image(target.getvalue())
    assert decoded.facts.codec == "jpeg"
    assert decoded.facts.notes == ("mpo_first_image", "trailing_bytes_ignored")
    with Image.open(io.BytesIO(target.getvalue())) as image:
        assert image.format == "MPO"
        np.testing.assert_array_equal(decoded.image_HWC, np.asarray(image.convert("RGB")))


def test_jpeg_fill_bytes_before_markers_are_skipped() -> None:
    data = jpeg()
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    filled = data[:frame] + b"\xff\xff" + data[frame:scan] + b"\xff" + data[scan:-2] + b"\xff\xff" + data[-2:]
    np.testing.assert_array_equal(decode_image(filled).image_HWC, by_pillow(data))


def test_jpeg_trailing_bytes_are_ignored_and_noted() -> None:
    data = jpeg()
    decoded = decode_image(data + b"\xff\xd8 a motion photo's film")
    assert decoded.facts.notes == ("trailing_bytes_ignored",)
    np.testing.assert_array_equal(decoded.image_HWC, by_pillow(data))


def test_jpeg_thumbnail_in_exif_does_not_hide_a_truncation() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + jpeg()
    data = insert_after_start(jpeg(), segment(0xE1, exif))
    assert decode_image(data).facts.has_exif
    with pytest.raises(ImageError) as refusal:
        decode_image(data[:-40])
    assert refusal.value.reason == "truncated"


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_every_prefix_is_refused_as_truncated(progressive: bool) -> None:
    data = jpeg(quality=40, progressive=progressive)
    for length in range(1, len(data)):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length])
        assert refusal.value.reason in ("truncated", "not_an_image"), length


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("kept_pct", [30, 60, 90])
def test_jpeg_with_lost_data_but_an_end_marker_is_truncated_where_pillow_pads(mode: str, kept_pct: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    data = jpeg(noise, mode=mode, quality=80)
    start = data.index(b"\xff\xda")
    cut = data[: start + (len(data) - start) * kept_pct // 100] + b"\xff\xd9"
    assert by_pillow(cut).shape == (96, 96, 3)
    with pytest.raises(ImageError) as refusal:
        decode_image(cut)
    assert refusal.value.reason == "truncated"


def test_jpeg_16_bit_samples_and_rare_processes_are_unsupported_variants() -> None:
    data = jpeg()
    frame = data.index(b"\xff\xc0")
    twelve_bit = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    with pytest.raises(ImageError, match=r"unsupported_variant: Expected 8-bit JPEG samples, got 12-bit\."):
        decode_image(twelve_bit)
    for process in (0xC3, 0xC9, 0xCA):
        with pytest.raises(ImageError, match=f"got frame type {process - 0xC0}"):
            decode_image(data[: frame + 1] + bytes((process,)) + data[frame + 2 :])


@pytest.mark.parametrize("hostile", [b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"])
def test_jpeg_broken_exif_changes_nothing(hostile: bytes) -> None:
    data = insert_after_start(jpeg(), segment(0xE1, hostile))
    decoded = decode_image(data)
    assert decoded.facts.orientation == 1
    np.testing.assert_array_equal(decoded.image_HWC, by_pillow(jpeg()))


def test_jpeg_icc_is_noted_and_ignored() -> None:
    data = jpeg(icc_profile=b"\0" * 300)
    decoded = decode_image(data)
    assert decoded.facts.has_icc
    assert decoded.facts.notes == ("icc_ignored",)
    np.testing.assert_array_equal(decoded.image_HWC, by_pillow(jpeg()))


def test_jpeg_rgb_without_colour_transform_keeps_its_adobe_segment() -> None:
    data = jpeg(keep_rgb=True, quality=100)
    np.testing.assert_array_equal(decode_image(data).image_HWC, by_pillow(data))
    assert np.abs(decode_image(data).image_HWC.astype(int) - PHOTO).max() <= 3


def test_jpeg_scan_bomb_is_refused() -> None:
    data = jpeg(progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match="Expected at most 256 scans, got more"):
        decode_image(data[:-2] + scan * 300 + b"\xff\xd9")


def test_jpeg_zero_height_is_refused() -> None:
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = b"\0\0"
    with pytest.raises(ImageError) as refusal:
        read_facts(bytes(data))
    assert refusal.value.reason == "zero_size"


@pytest.mark.parametrize(
    ("mangle", "text"),
    [
        (lambda d: d[:2] + b"\xff\xd9", "Expected a frame header and a scan"),
        (lambda d: d[:2] + b"\xff\xd8" + segment(0xFE, b"x") + d[2:], "Expected one start marker"),
        (lambda d: d[:2] + b"\xff\xfe\0\0" + d[2:], "Expected a segment of at least 2 bytes"),
        (lambda d: d[:2] + segment(0xDA, b"\x01") + d[2:], "Expected a frame header before the scan"),
        (lambda d: d[:2] + segment(0xDB, b"\0\1\2") + d[2:], "Expected 64 bytes of quantisation table 0, got 2"),
        (lambda d: d[:2] + segment(0xC0, b"\x08\0\5\0\5\1\1\x11") + d[2:], "Expected a frame header of 6"),
        (lambda d: d[:2] + segment(0xC0, b"\x08\0\5\0\5\1\1\x11\0") + d[2:], "Expected one frame header, got two"),
        (lambda d: d[:2] + segment(0xC0, b"\x08\0\5\0\5\2" + b"\1\x11\0" * 2) + d[2:], "1, 3 or 4 JPEG components"),
        (lambda d: d[:2] + segment(0xC0, b"\x08\0\5\0\5\1\1\x01\0") + d[2:], "sampling factors in"),
        (lambda d: d[:2] + b"\xff\xfe\0\2" * 100_001 + d[2:], "Expected at most 100000 JPEG segments"),
    ],
)
def test_jpeg_structure_errors_teach(mangle, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        decode_image(mangle(jpeg()))


def test_jpeg_missing_quantisation_table_is_corrupt() -> None:
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 12] = 3
    with pytest.raises(ImageError, match="Expected quantisation table 3 that the frame header names, got none"):
        decode_image(bytes(data))
