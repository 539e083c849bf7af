"""GIF rules, from files built block by block here (with uncompressed LZW codes) and from Pillow's writer."""

from __future__ import annotations

import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import GifImagePlugin, Image

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_image

PALETTE = bytes([10, 20, 30, 200, 0, 0, 0, 200, 0, 0, 0, 200])
INDICES = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
COLOURS = np.frombuffer(PALETTE, np.uint8).reshape(4, 3)


def lzw(indices: np.ndarray) -> bytes:
    """Code pixels as 3-bit literals with a clear code after every two, so that codes never grow."""
    codes = []
    for place, index in enumerate(indices.reshape(-1).tolist()):
        codes += [4, index] if place % 2 == 0 else [index]
    bits = "".join(f"{code:03b}"[::-1] for code in [*codes, 5])
    packed = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    return b"\x02" + bytes((len(packed),)) + packed + b"\0"


def image_block(
    indices: np.ndarray, left: int = 0, top: int = 0, palette: bytes = b"", interlaced: bool = False
) -> bytes:
    height, width = indices.shape
    flags = (0x81 if palette else 0) | (0x40 if interlaced else 0)
    return struct.pack("<BHHHHB", 0x2C, left, top, width, height, flags) + palette + lzw(indices)


def control(transparent: int) -> bytes:
    return bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])


def gif(*blocks: bytes, size: tuple[int, int] = (3, 2), palette: bytes = PALETTE, background: int = 3) -> bytes:
    flags = 0x81 if palette else 0
    return b"GIF89a" + struct.pack("<HHBBB", *size, flags, background, 0) + palette + b"".join(blocks) + b";"


def test_gif_pixels_come_from_the_global_palette() -> None:
    decoded = decode_image(gif(image_block(INDICES)))
    np.testing.assert_array_equal(decoded.image_HWC, COLOURS[INDICES])
    facts = decoded.facts
    assert (facts.codec, facts.mode, facts.n_frames, facts.has_alpha, facts.notes) == ("gif", "P", 1, False, ())


def test_gif_local_palette_wins() -> None:
    decoded = decode_image(gif(image_block(INDICES, palette=PALETTE[::-1])))
    reverse = np.frombuffer(PALETTE[::-1], np.uint8).reshape(4, 3)
    np.testing.assert_array_equal(decoded.image_HWC, reverse[INDICES])


def test_gif_without_any_palette_is_a_grey_ramp() -> None:
    decoded = decode_image(gif(image_block(INDICES), palette=b""))
    np.testing.assert_array_equal(decoded.image_HWC, np.repeat(INDICES[..., None], 3, axis=2))


def test_gif_transparent_index_becomes_white() -> None:
    decoded = decode_image(gif(control(2), image_block(INDICES)))
    expected = np.where((INDICES == 2)[..., None], 255, COLOURS[INDICES])
    np.testing.assert_array_equal(decoded.image_HWC, expected)
    assert decoded.facts.notes == ("alpha_composited",)


def test_gif_what_the_first_frame_leaves_open_is_white_not_the_background_colour() -> None:
    decoded = decode_image(gif(image_block(INDICES, left=1, top=2), size=(5, 4)))
    expected = np.full((4, 5, 3), 255, np.uint8)
    expected[2:4, 1:4] = COLOURS[INDICES]
    np.testing.assert_array_equal(decoded.image_HWC, expected)
    assert decoded.facts.has_alpha


def test_gif_canvas_grows_to_hold_the_first_frame() -> None:
    decoded = decode_image(gif(image_block(INDICES, left=1), size=(2, 1)))
    assert decoded.image_HWC.shape == (2, 4, 3)
    np.testing.assert_array_equal(decoded.image_HWC[:, 1:], COLOURS[INDICES])


def test_gif_interlaced_rows_are_put_in_order() -> None:
    rows = np.arange(8, dtype=np.uint8)[:, None] % 4
    stored = rows[[0, 4, 2, 6, 1, 3, 5, 7]]
    stored_as_read = decode_image(gif(image_block(stored, interlaced=True), size=(1, 8)))
    np.testing.assert_array_equal(stored_as_read.image_HWC, COLOURS[rows])
    assert stored_as_read.facts.progressive


def test_gif_first_of_many_frames_is_noted() -> None:
    decoded = decode_image(gif(image_block(INDICES), control(1), image_block(3 - INDICES), image_block(INDICES)))
    np.testing.assert_array_equal(decoded.image_HWC, COLOURS[INDICES])
    assert decoded.facts.n_frames == 3
    assert decoded.facts.notes == ("first_frame_of_3",)


def test_gif_from_pillows_writer_agrees_with_pillow() -> None:
    photo = Image.effect_noise((50, 40), 80).convert("P", palette=Image.Palette.ADAPTIVE)
    target = io.BytesIO()
    photo.save(target, "GIF", save_all=True, append_images=[photo.rotate(90)], comment=b"hello")
    with Image.open(io.BytesIO(target.getvalue())) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(target.getvalue()).image_HWC, expected)


def test_gif_rule_does_not_depend_on_pillows_loading_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gif(control(2), image_block(INDICES))
    expected = decode_image(data).image_HWC
    monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", GifImagePlugin.LoadingStrategy.RGB_ALWAYS)
    np.testing.assert_array_equal(decode_image(data).image_HWC, expected)


def test_gif_every_prefix_is_refused_as_truncated() -> None:
    data = gif(control(2), b"\x21\xfe\x03abc\0", image_block(INDICES, palette=PALETTE), image_block(INDICES))
    for length in range(1, len(data)):
        with pytest.raises(ImageError) as refusal:
            decode_image(data[:length])
        assert refusal.value.reason == "truncated", length


def test_gif_with_fewer_pixels_than_its_frame_is_truncated() -> None:
    short = struct.pack("<BHHHHB", 0x2C, 0, 0, 3, 2, 0) + lzw(INDICES[:1])
    with pytest.raises(ImageError) as refusal:
        decode_image(gif(short))
    assert refusal.value.reason == "truncated"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gif(), "corrupt"),
        (gif(b"\x77"), "corrupt"),
        (gif(b"\x21\xf9\x03\1\0\0\0\0", image_block(INDICES)), "corrupt"),
        (gif(image_block(INDICES)[:5] + bytes(4) + image_block(INDICES)[9:]), "corrupt"),
        (gif(image_block(INDICES), size=(65535, 65535)), "side_too_long"),
        (gif(image_block(INDICES, left=65000, top=65000)), "side_too_long"),
        (gif(image_block(INDICES), size=(20000, 20000)), "too_many_pixels"),
    ],
)
def test_gif_structure_errors_have_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as refusal:
        decode_image(data)
    assert refusal.value.reason == reason


def test_gif_golden() -> None:
    data = gif(control(0), image_block(INDICES, left=1, top=1), size=(5, 4))
    digest = hashlib.sha256(decode_image(data).image_HWC.tobytes()).hexdigest()
    assert digest == "1b8b3e31d560ce2dbb2926ff222878e2ddbee5a8c9d080e27a3f18b3772df890"
