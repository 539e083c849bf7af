"""TIFF rules, from files built tag by tag here, and from Pillow's writer for the compressed ones."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_image, read_facts

RNG = np.random.default_rng(5)
RGB_8 = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
GREY_16 = np.array([[0, 1, 128, 129, 257], [32767, 32768, 65279, 65407, 65535]], np.uint16)
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5


def tiff(
    samples: np.ndarray, photometric: int, changes: dict[int, tuple[int, ...] | None] | None = None, endian: str = "<"
) -> bytes:
    """Build an uncompressed one-strip TIFF; `changes` overrides tags, None removes one."""
    planes = 1 if samples.ndim == 2 else samples.shape[2]
    pixels = samples.astype(samples.dtype.newbyteorder(endian)).tobytes()
    tags = {256: (samples.shape[1],), 257: (samples.shape[0],), 258: (8 * samples.itemsize,) * planes, 259: (1,)}
    tags |= {262: (photometric,), 273: (8,), 277: (planes,), 278: (samples.shape[0],), 279: (len(pixels),)}
    tags |= changes or {}
    kept = sorted((tag, numbers) for tag, numbers in tags.items() if numbers is not None)
    start = 8 + len(pixels) + len(pixels) % 2
    entries, values = b"", b""
    for tag, numbers in kept:
        packed = struct.pack(f"{endian}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, values = struct.pack(endian + "I", start + 6 + 12 * len(kept) + len(values)), values + packed
        entries += struct.pack(endian + "HHI", tag, 4, len(numbers)) + packed
    header = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", start)
    directory = struct.pack(endian + "H", len(kept)) + entries + bytes(4)
    return header + pixels.ljust(start - 8, b"\0") + directory + values


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    exact = (colour.astype(float) * alpha + 255.0 * (255 - alpha.astype(float))) / 255
    return np.rint(exact).astype(np.uint8)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_tiff_rgb_8_bit(endian: str) -> None:
    decoded = decode_image(tiff(RGB_8, RGB, endian=endian))
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert (decoded.facts.codec, decoded.facts.mode, decoded.facts.notes) == ("tiff", "RGB", ())


@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, WHITE_IS_ZERO])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_tiff_grey_of_both_polarities(photometric: int, endian: str) -> None:
    sign = 1 if photometric == BLACK_IS_ZERO else -1
    eight = decode_image(tiff(RGB_8[..., 0], photometric, endian=endian)).image_HWC[..., 0]
    np.testing.assert_array_equal(eight, RGB_8[..., 0] if sign == 1 else 255 - RGB_8[..., 0])
    sixteen = decode_image(tiff(GREY_16, photometric, endian=endian))
    scaled = np.rint(GREY_16 / 257).astype(np.uint8)
    np.testing.assert_array_equal(sixteen.image_HWC[..., 0], scaled if sign == 1 else 255 - scaled)
    assert (sixteen.facts.mode, sixteen.facts.notes) == ("I;16", ("converted_16_bit",))


@pytest.mark.parametrize(("photometric", "expected"), [(BLACK_IS_ZERO, [255, 0]), (WHITE_IS_ZERO, [0, 255])])
def test_tiff_bilevel(photometric: int, expected: list[int]) -> None:
    data = tiff(np.array([[0b10000000]], np.uint8), photometric, {256: (2,), 258: (1,)})
    decoded = decode_image(data)
    assert decoded.image_HWC[0, :, 1].tolist() == expected
    assert (decoded.facts.mode, decoded.facts.bit_depth) == ("1", 1)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_tiff_16_bit_rgb_keeps_the_high_byte(endian: str) -> None:
    samples = RNG.integers(0, 65536, (3, 4, 3), dtype=np.uint16)
    decoded = decode_image(tiff(samples, RGB, endian=endian))
    np.testing.assert_array_equal(decoded.image_HWC, samples >> 8)
    assert decoded.facts.notes == ("converted_16_bit",)


def test_tiff_straight_alpha_is_laid_over_white() -> None:
    samples = np.concatenate([RGB_8, RNG.integers(0, 256, (4, 5, 1), dtype=np.uint8)], axis=2)
    decoded = decode_image(tiff(samples, RGB, {338: (2,)}))
    np.testing.assert_array_equal(decoded.image_HWC, over_white(samples[..., :3], samples[..., 3:]))
    grey = decode_image(tiff(samples[..., 2:], BLACK_IS_ZERO, {338: (2,)}))
    np.testing.assert_array_equal(grey.image_HWC[..., 0], over_white(samples[..., 2], samples[..., 3]))
    assert (grey.facts.mode, grey.facts.has_alpha) == ("LA", True)


def test_tiff_unspecified_extra_sample_is_dropped() -> None:
    samples = np.concatenate([RGB_8, RGB_8[..., :1]], axis=2)
    decoded = decode_image(tiff(samples, RGB, {338: (0,)}))
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert not decoded.facts.has_alpha


def test_tiff_palette_uses_the_high_byte_of_the_colour_map() -> None:
    colour_map = RNG.integers(0, 65536, 768)
    indices = RNG.integers(0, 256, (3, 4), dtype=np.uint8)
    decoded = decode_image(tiff(indices, PALETTE, {320: tuple(colour_map.tolist())}))
    np.testing.assert_array_equal(decoded.image_HWC, (colour_map.reshape(3, 256).T >> 8)[indices])


def test_tiff_cmyk_follows_the_stated_formula() -> None:
    inks = RNG.integers(0, 256, (3, 4, 4), dtype=np.uint8)
    light = 255 - inks[..., 3:].astype(int)
    expected = light - (light * inks[..., :3] + 127) // 255
    decoded = decode_image(tiff(inks, CMYK))
    np.testing.assert_array_equal(decoded.image_HWC, expected)
    assert decoded.facts.notes == ("cmyk_converted",)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_tiff_from_pillows_writer(compression: str | None, mode: str) -> None:
    picture = Image.fromarray(np.resize(RGB_8, (300, 400, 3)))
    picture = Image.fromarray(np.resize(GREY_16, (300, 400))) if mode == "I;16" else picture.convert(mode)
    target = io.BytesIO()
    picture.save(target, "TIFF", compression=compression)
    expected = np.rint(np.asarray(picture) / 257)[..., None] if mode == "I;16" else np.asarray(picture.convert("RGB"))
    decoded = decode_image(target.getvalue())
    np.testing.assert_array_equal(decoded.image_HWC, np.broadcast_to(expected, (300, 400, 3)))


def test_tiff_horizontal_predictor_is_undone() -> None:
    target = io.BytesIO()
    Image.fromarray(RGB_8).save(target, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
    np.testing.assert_array_equal(decode_image(target.getvalue()).image_HWC, RGB_8)


def test_tiff_several_strips() -> None:
    whole = tiff(RGB_8, RGB)
    strips = tiff(RGB_8, RGB, {278: (3,), 273: (8, 8 + 45), 279: (45, 15)})
    np.testing.assert_array_equal(decode_image(strips).image_HWC, decode_image(whole).image_HWC)


def test_tiff_first_of_many_pages_is_noted() -> None:
    target = io.BytesIO()
    pages = [Image.fromarray(RGB_8), Image.fromarray(255 - RGB_8), Image.new("L", (900, 900))]
    pages[0].save(target, "TIFF", save_all=True, append_images=pages[1:])
    decoded = decode_image(target.getvalue())
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.notes == ("first_frame_of_3",)


def test_tiff_every_prefix_is_refused_as_truncated() -> None:
    data = tiff(RGB_8, RGB)
    for length in range(1, len(data)):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length])
        # The last four bytes of this file belong to a tag's numbers; without them the tag cannot be read.
        assert refusal.value.reason == "truncated", length


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressed_strip_with_lost_data_is_refused(compression: str) -> None:
    target = io.BytesIO()
    noise = RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(target, "TIFF", compression=compression)
    data = bytearray(target.getvalue())
    (directory,) = struct.unpack_from("<I", data, 4)
    (n_entries,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * n_entries, 12):
        if struct.unpack_from("<H", data, entry) == (279,):
            (size,) = struct.unpack_from("<I", data, entry + 8)
            struct.pack_into("<HI", data, entry + 2, 4, 1)
            struct.pack_into("<I", data, entry + 8, size // 2)
    with pytest.raises(ImageError) as refusal:
        decode_image(bytes(data))
    assert refusal.value.reason in ("corrupt", "truncated")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(RGB_8.astype(np.float32)[..., 0], BLACK_IS_ZERO, {339: (3,)}), "unsupported_variant"),
        (tiff(GREY_16.astype(np.int16), BLACK_IS_ZERO, {339: (2,)}), "unsupported_variant"),
        (tiff(GREY_16.astype(np.uint32), BLACK_IS_ZERO), "unsupported_variant"),
        (tiff(RGB_8, RGB, {284: (2,)}), "unsupported_variant"),
        (tiff(RGB_8, RGB, {322: (16,), 323: (16,)}), "unsupported_variant"),
        (tiff(RGB_8, RGB, {259: (7,)}), "unsupported_variant"),
        (tiff(RGB_8, RGB, {266: (2,)}), "unsupported_variant"),
        (tiff(RGB_8, 6), "unsupported_variant"),
        (tiff(RGB_8, 8), "unsupported_variant"),
        (tiff(np.concatenate([RGB_8, RGB_8[..., :1]], axis=2), RGB, {338: (1,)}), "unsupported_variant"),
        (tiff(np.concatenate([RGB_8, RGB_8[..., :1]], axis=2), RGB), "unsupported_variant"),
        (tiff(RGB_8, RGB, {277: (4_000_000_000,)}), "unsupported_variant"),
        (tiff(RGB_8, RGB, {256: (100_000,), 257: (100_000,)}), "side_too_long"),
        (tiff(RGB_8, RGB, {256: (20_000,), 257: (20_000,)}), "too_many_pixels"),
        (tiff(RGB_8, RGB, {256: (9_900,), 257: (9_900,)}), "too_many_pixels"),
        (tiff(RGB_8, RGB, {256: (0,)}), "zero_size"),
        (tiff(RGB_8, RGB, {256: None}), "corrupt"),
        (tiff(RGB_8, RGB, {256: (5, 5)}), "corrupt"),
        (tiff(RGB_8, RGB, {273: None}), "corrupt"),
        (tiff(RGB_8, RGB, {278: (0,)}), "corrupt"),
        (tiff(RGB_8, RGB, {278: (1,)}), "corrupt"),
        (tiff(RGB_8, RGB, {279: (59,)}), "truncated"),
        (tiff(RGB_8, RGB, {273: (4_000_000_000,)}), "truncated"),
        (tiff(RGB_8[..., 0], PALETTE), "corrupt"),
        (b"II*\0\xff\xff\xff\xff", "truncated"),
        (b"II*\0\x08\0\0\0\xff\xff", "truncated"),
        (b"II+\0\x08\0\0\0" + bytes(64), "unsupported_format"),
    ],
)
def test_tiff_refusals_have_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as refusal:
        read_facts(data)
    assert refusal.value.reason == reason
    assert refusal.value.detail.startswith("Expected ")


def test_tiff_looping_directory_chain_is_refused() -> None:
    data = bytearray(tiff(RGB_8, RGB))
    (directory,) = struct.unpack_from("<I", data, 4)
    (n_entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * n_entries, directory)
    with pytest.raises(ImageError, match=r"corrupt: Expected a chain of at most 10000 TIFF directories, got a loop"):
        decode_image(bytes(data))


def test_tiff_absurd_tag_counts_cost_nothing() -> None:
    data = bytearray(tiff(RGB_8, RGB))
    (directory,) = struct.unpack_from("<I", data, 4)
    struct.pack_into("<I", data, directory + 2 + 4, 4_000_000_000)
    with pytest.raises(ImageError, match="Expected 1 to 100000 unsigned numbers in TIFF tag 256, got 4000000000"):
        decode_image(bytes(data))


def test_tiff_same_tag_twice_is_corrupt() -> None:
    data = bytearray(tiff(RGB_8, RGB))
    (directory,) = struct.unpack_from("<I", data, 4)
    struct.pack_into("<H", data, directory + 2 + 12, 256)
    with pytest.raises(ImageError, match="Expected TIFF tag 256 once, got it twice"):
        decode_image(bytes(data))


def test_tiff_hostile_exif_and_sub_directories_are_never_followed() -> None:
    data = tiff(RGB_8, RGB, {34665: (8,), 330: (8, 8, 8), 34675: (1,) * 40, 700: (1, 2, 3)})
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.has_exif
    assert decoded.facts.has_icc
