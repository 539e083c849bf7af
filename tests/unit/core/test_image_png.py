"""PNG rules, each from a file built byte by byte here, so the expected pixels come from the specification alone."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_image, encode_image, read_facts

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: list[bytes], width: int, depth: int, colour_type: int, *extra: bytes, interlace: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, interlace))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return SIGNATURE + header + b"".join(extra) + chunk(b"IDAT", pixels) + chunk(b"IEND")


def rows_of(samples: np.ndarray) -> list[bytes]:
    """Big-endian rows of an array of shape (H, W) or (H, W, C)."""
    return [np.ascontiguousarray(row).astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples]


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    exact = (colour.astype(float) * alpha + 255.0 * (255 - alpha.astype(float))) / 255
    return np.rint(exact).astype(np.uint8)


RNG = np.random.default_rng(11)
GREY_8 = RNG.integers(0, 256, (4, 5), dtype=np.uint8)
RGB_8 = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
ALPHA_8 = np.array([[0, 1, 127, 128, 255]] * 4, np.uint8)
GREY_16 = np.array([[0, 1, 128, 129, 257], [32767, 32768, 65279, 65407, 65535]], np.uint16)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_grey_of_every_depth_spans_black_to_white(depth: int) -> None:
    top = 2**depth - 1
    levels = np.array([0, top, 1 % (top + 1), 0, top, top, 0, 1], np.uint8)
    bits = np.unpackbits(levels[:, None], axis=1)[:, 8 - depth :].reshape(-1)
    decoded = decode_image(png([np.packbits(bits).tobytes()], 8, depth, GREY))
    np.testing.assert_array_equal(decoded.image_HWC[0], np.repeat(levels[:, None] * (255 // top), 3, axis=1))
    assert decoded.facts.bit_depth == depth
    assert decoded.facts.mode == ("1" if depth == 1 else "L")


def test_png_16_bit_grey_is_scaled_and_rounded_where_pillow_clips() -> None:
    data = png(rows_of(GREY_16), 5, 16, GREY)
    decoded = decode_image(data)
    expected = np.rint(GREY_16 / 257).astype(np.uint8)
    np.testing.assert_array_equal(decoded.image_HWC, np.repeat(expected[..., None], 3, axis=2))
    assert decoded.facts.mode == "I;16"
    assert decoded.facts.notes == ("converted_16_bit",)


@pytest.mark.parametrize(("colour_type", "channels"), [(RGB, 3), (GREY_ALPHA, 2), (RGB_ALPHA, 4)])
def test_png_16_bit_colour_keeps_the_high_byte(colour_type: int, channels: int) -> None:
    samples = RNG.integers(0, 65536, (3, 4, channels), dtype=np.uint16)
    high = (samples >> 8).astype(np.uint8)
    expected = high if colour_type == RGB else over_white(high[..., :-1], high[..., -1:])
    decoded = decode_image(png(rows_of(samples), 4, 16, colour_type))
    np.testing.assert_array_equal(decoded.image_HWC, np.broadcast_to(expected, (3, 4, 3)))
    assert decoded.facts.bit_depth == 16
    assert "converted_16_bit" in decoded.facts.notes


@pytest.mark.parametrize("colour_type", [GREY_ALPHA, RGB_ALPHA])
def test_png_alpha_is_laid_over_white_with_exact_rounding(colour_type: int) -> None:
    colour = GREY_8[..., None] if colour_type == GREY_ALPHA else RGB_8
    samples = np.concatenate([colour, ALPHA_8[..., None]], axis=2)
    decoded = decode_image(png(rows_of(samples), 5, 8, colour_type))
    expected = over_white(colour, ALPHA_8[..., None])
    np.testing.assert_array_equal(decoded.image_HWC, np.broadcast_to(expected, (4, 5, 3)))
    assert decoded.facts.has_alpha
    assert decoded.facts.notes == ("alpha_composited",)


def test_png_alpha_rounding_holds_for_all_pairs() -> None:
    colour, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    decoded = decode_image(png(rows_of(np.stack([colour, alpha], axis=2)), 256, 8, GREY_ALPHA))
    np.testing.assert_array_equal(decoded.image_HWC[..., 0], over_white(colour, alpha))


def test_png_garbage_under_full_transparency_never_shows() -> None:
    hidden = np.concatenate([RGB_8, np.zeros((4, 5, 1), np.uint8)], axis=2)
    assert (decode_image(png(rows_of(hidden), 5, 8, RGB_ALPHA)).image_HWC == 255).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_palette_with_and_without_transparency(depth: int) -> None:
    n_colours = min(2**depth, 7)
    colours = RNG.integers(0, 256, (n_colours, 3), dtype=np.uint8)
    alphas = np.array([0, 100], np.uint8)
    indices = RNG.integers(0, n_colours, (3, 8), dtype=np.uint8)
    bits = np.unpackbits(indices[..., None], axis=2)[..., 8 - depth :].reshape(3, -1)
    rows = [row.tobytes() for row in np.packbits(bits, axis=1)]
    plte, trns = chunk(b"PLTE", colours.tobytes()), chunk(b"tRNS", alphas.tobytes())
    opaque = decode_image(png(rows, 8, depth, PALETTE, plte))
    np.testing.assert_array_equal(opaque.image_HWC, colours[indices])
    assert not opaque.facts.has_alpha
    clear = decode_image(png(rows, 8, depth, PALETTE, plte, trns))
    all_alphas = np.array([0, 100, 255, 255, 255, 255, 255], np.uint8)[:n_colours, None]
    np.testing.assert_array_equal(clear.image_HWC, over_white(colours, all_alphas)[indices])
    assert clear.facts.has_alpha


def test_png_palette_index_outside_the_palette_is_black() -> None:
    data = png([b"\0\1\2\xff"], 4, 8, PALETTE, chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60])))
    assert decode_image(data).image_HWC[0].tolist() == [[10, 20, 30], [40, 50, 60], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("depth", [2, 8, 16])
def test_png_grey_colour_key_becomes_white(depth: int) -> None:
    if depth == 2:
        data = png([bytes([0b00011011])], 4, 2, GREY, chunk(b"tRNS", b"\0\1"))
        expected = [0, 255, 170, 255]
    elif depth == 8:
        data = png([bytes([0, 9, 10, 11])], 4, 8, GREY, chunk(b"tRNS", b"\0\x0a"))
        expected = [0, 9, 255, 11]
    else:
        data = png([struct.pack(">4H", 0, 2570, 2571, 2572)], 4, 16, GREY, chunk(b"tRNS", struct.pack(">H", 2571)))
        expected = [0, 10, 255, 10]
    decoded = decode_image(data)
    assert decoded.image_HWC[0, :, 0].tolist() == expected
    assert decoded.facts.has_alpha


def test_png_rgb_colour_key_becomes_white_only_when_all_channels_match() -> None:
    data = png([bytes([1, 2, 3, 1, 2, 4])], 2, 8, RGB, chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert decode_image(data).image_HWC[0].tolist() == [[255, 255, 255], [1, 2, 4]]


def test_png_16_bit_rgb_colour_key_is_refused() -> None:
    data = png([bytes(6)], 1, 16, RGB, chunk(b"tRNS", bytes(6)))
    with pytest.raises(ImageError, match="unsupported_variant: Expected no colour key in a 16-bit RGB PNG"):
        decode_image(data)


def test_png_interlaced_gives_the_same_pixels() -> None:
    # Adam7 of a 1 x 1 image is the image itself; of 2 x 1 its two pixels are passes 1 and 6.
    interlaced = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, GREY, 0, 0, 1))
    interlaced += chunk(b"IDAT", zlib.compress(b"\0\x21" + b"\0\x63")) + chunk(b"IEND")
    decoded = decode_image(interlaced)
    assert decoded.image_HWC[0, :, 0].tolist() == [0x21, 0x63]
    assert decoded.facts.progressive


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"sRGB", b"\0"),
        chunk(b"cHRM", bytes(32)),
        chunk(b"cICP", b"\x0c\x0d\0\1"),
        chunk(b"iCCP", b"wide\0\0" + zlib.compress(bytes(500))),
        chunk(b"iCCP", b"no terminator"),
        chunk(b"bKGD", b"\0\7\0\7\0\7"),
    ],
)
def test_png_colour_management_and_background_chunks_change_nothing(extra: bytes) -> None:
    decoded = decode_image(png(rows_of(RGB_8), 5, 8, RGB, extra))
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.has_icc == (b"iCCP" in extra)


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(40_000_000))),
        chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(40_000_000))),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(40_000_000))),
    ],
)
def test_png_metadata_bombs_are_never_unpacked(bomb: bytes) -> None:
    data = png(rows_of(RGB_8), 5, 8, RGB, bomb)
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(data)) as image:
        image.load()
    np.testing.assert_array_equal(decode_image(data).image_HWC, RGB_8)


def apng(*before: bytes, first_outside: bool) -> bytes:
    target = io.BytesIO()
    frames = [Image.fromarray(RGB_8), Image.fromarray(255 - RGB_8), Image.fromarray(RGB_8 // 2)]
    frames[0].save(target, "PNG", save_all=True, append_images=frames[1:], default_image=first_outside)
    return target.getvalue()


@pytest.mark.parametrize("first_outside", [False, True])
def test_png_animation_gives_the_default_image(first_outside: bool) -> None:
    data = apng(first_outside=first_outside)
    with Image.open(io.BytesIO(data)) as image:
        n_frames = image.n_frames
    decoded = decode_image(data)
    np.testing.assert_array_equal(decoded.image_HWC, RGB_8)
    assert decoded.facts.n_frames == n_frames == 3
    assert decoded.facts.notes == ("first_frame_of_3",)


def test_png_invalid_animation_control_is_ignored() -> None:
    data = png(rows_of(RGB_8), 5, 8, RGB, chunk(b"acTL", bytes(8)))
    np.testing.assert_array_equal(decode_image(data).image_HWC, RGB_8)


def test_png_every_prefix_is_refused_as_truncated() -> None:
    data = png(rows_of(RGB_8), 5, 8, RGB)
    for length in range(1, len(data)):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length])
        assert refusal.value.reason == "truncated", length


def test_png_every_flipped_byte_behind_the_signature_is_refused() -> None:
    data = png(rows_of(RGB_8), 5, 8, RGB, chunk(b"tEXt", b"key\0value"))
    for place in range(8, len(data)):
        broken = data[:place] + bytes((data[place] ^ 0x10,)) + data[place + 1 :]
        with pytest.raises(ImageError) as refusal:
            decode_image(broken)
        assert refusal.value.reason in ("corrupt", "truncated"), place


def test_png_checksum_error_names_the_chunk() -> None:
    data = png(rows_of(RGB_8), 5, 8, RGB)
    place = data.index(b"IDAT") + 6
    with pytest.raises(ImageError, match=r"corrupt: Expected checksum .* in chunk IDAT"):
        read_facts(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])


def test_png_black_last_row_is_whole() -> None:
    black = np.zeros((3, 4, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(png(rows_of(black), 4, 8, RGB)).image_HWC, black)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8), (9, 17)])
def test_png_interlaced_of_all_sizes_is_whole(shape: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    passes = [pixels[top::dy, left::dx] for left, top, dx, dy in ADAM7]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 8, GREY, 0, 0, 1))
    whole = SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")
    np.testing.assert_array_equal(decode_image(whole).image_HWC[..., 0], pixels)
    for lost in {1, passes[-1].size + len(passes[-1])} - {0}:
        short = SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows[:-lost])) + chunk(b"IEND")
        with pytest.raises(ImageError, match="truncated: "):
            decode_image(short)


@pytest.mark.parametrize("rows", [2, 3])
def test_png_with_whole_chunks_but_too_few_rows_is_truncated(rows: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 8, RGB, 0, 0, 0))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows_of(RGB_8)[:rows]))
    with pytest.raises(ImageError) as refusal:
        decode_image(SIGNATURE + header + chunk(b"IDAT", pixels) + chunk(b"IEND"))
    assert refusal.value.reason == "truncated"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SIGNATURE + chunk(b"IEND"), "corrupt"),
        (SIGNATURE + chunk(b"CgBI", b"\x50\0\x20\2") + png([b"\0"], 1, 8, GREY)[8:], "unsupported_variant"),
        (png([b"\0"], 1, 3, GREY), "corrupt"),
        (png([b"\0"], 1, 8, 5), "corrupt"),
        (png([b"\0"], 1, 8, PALETTE), "corrupt"),
        (png([b"\0"], 1, 8, PALETTE, chunk(b"PLTE", b"\0\0")), "corrupt"),
        (png([b"\0"], 1, 8, GREY, chunk(b"tRNS", b"\0")), "corrupt"),
        (png([b"\0"], 1, 8, GREY, chunk(b"NEWX")), "unsupported_variant"),
        (png([b"\0"], 1, 8, GREY, chunk(b"IDAT"), chunk(b"tIME")), "corrupt"),
        (png([b"\0"], 1, 8, GREY, chunk(b"eXIf"), chunk(b"eXIf")), "corrupt"),
        (png([b"\0"], 1, 8, GREY).replace(b"IDAT", b"1DAT"), "corrupt"),
        (png([], 1, 8, GREY), "zero_size"),
        (png([b""], 0, 8, GREY), "zero_size"),
        (png([b"\0"], 1, 8, GREY, chunk(b"teXt") * 100_001), "corrupt"),
    ],
)
def test_png_structure_errors_have_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as refusal:
        decode_image(data)
    assert refusal.value.reason == reason
    assert refusal.value.detail.startswith("Expected ")


def test_png_bytes_after_the_end_are_ignored() -> None:
    np.testing.assert_array_equal(decode_image(png(rows_of(RGB_8), 5, 8, RGB) + b"tail").image_HWC, RGB_8)


def test_png_golden() -> None:
    values = (np.arange(6 * 7 * 3) * 37 % 256).astype(np.uint8).reshape(6, 7, 3)
    digest = hashlib.sha256(decode_image(png(rows_of(values), 7, 8, RGB)).image_HWC.tobytes()).hexdigest()
    assert digest == "2dd352558f3a62a44ebac8b96d506e211f0619047e8b1db147671382d228ce7a"


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20).map(lambda s: (*s, 3))))
def test_png_round_trip_is_exact(pixels: np.ndarray) -> None:
    decoded = decode_image(encode_image(pixels, "png", None))
    np.testing.assert_array_equal(decoded.image_HWC, pixels)
    assert decoded.facts.notes == ()
