"""GIF: walk all blocks, and hand Pillow the first frame alone, without palette.

Format: GIF89a. The walk counts the frames and proves that the file is whole. Pillow then decodes one bare frame to
palette indices; palette, transparency and the place on the canvas are applied here. What the first frame does not
cover is transparent, as in browsers, and so becomes white.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np
from PIL import GifImagePlugin

from forgery_det.core.image_facts import DecodeLimits, ImageFacts, RGBArray, common_notes, corrupt, truncated
from forgery_det.core.image_pixels import WHITE, StrictBytes, StrictImageFile, band_by_band, look_up, rgba_palette

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_GREY_RAMP = bytes(value for value in range(256) for _ in range(3))


@dataclass(frozen=True, slots=True)
class _Frame:
    """The first frame: its place, its colours, and its coded data including the code-size byte."""

    left: int
    top: int
    width: int
    height: int
    is_interlaced: bool
    palette: bytes
    transparent: int | None
    coded: bytes


class _Reader(GifImagePlugin.GifImageFile, StrictImageFile):
    """Pillow's reader, strict about missing pixels."""


@dataclass(frozen=True, slots=True)
class GifFile:
    """A GIF whose blocks are whole."""

    stored: ImageFacts
    frame: _Frame

    def rgb(self) -> RGBArray:
        """Decode the first frame onto a white canvas, shape (H, W, 3)."""
        frame = self.frame
        palette = rgba_palette(frame.palette or _GREY_RAMP)
        if frame.transparent is not None:
            palette[frame.transparent, 3] = 0
        screen = struct.pack("<6sHHBBB", b"GIF89a", frame.width, frame.height, 0, 0, 0)
        place = struct.pack("<BHHHHB", _IMAGE, 0, 0, frame.width, frame.height, 64 * frame.is_interlaced)
        bare = screen + place + frame.coded + bytes((_TRAILER,))
        with _Reader(StrictBytes(bare)) as image:
            picture = band_by_band(image, lambda band: look_up(np.asarray(band), palette))
        if picture.shape[:2] == (self.stored.height_px, self.stored.width_px):
            return picture
        canvas = np.full((self.stored.height_px, self.stored.width_px, 3), WHITE, np.uint8)
        canvas[frame.top : frame.top + frame.height, frame.left : frame.left + frame.width] = picture
        return canvas


def parse(data: bytes, limits: DecodeLimits) -> GifFile:
    """Walk a GIF from header to trailer.

    Args:
        data: The file.
        limits: Bounds on the size.

    Returns:
        The file, ready to decode.

    Raises:
        ImageError: `truncated`, `corrupt` or a size reason.
    """
    if len(data) < 13:
        raise truncated(f"Expected a GIF header of 13 bytes, got {len(data)}.")
    screen_width, screen_height, flags = struct.unpack_from("<HHB", data, 6)
    if screen_width and screen_height:
        limits.check_size(screen_width, screen_height)
    shared_palette, position = _palette(data, 13, flags)
    first, n_frames = _walk(data, position, shared_palette)
    width = max(screen_width, first.left + first.width)
    height = max(screen_height, first.top + first.height)
    limits.check_size(width, height)
    if not (first.width and first.height):
        raise corrupt(f"Expected a first frame of at least 1 x 1 px, got {first.width} x {first.height} px.")
    facts = ImageFacts(
        codec="gif",
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        mode="P",
        bit_depth=8,
        n_frames=n_frames,
        progressive=first.is_interlaced,
        has_alpha=first.transparent is not None or (first.width, first.height) != (width, height),
    )
    return GifFile(replace(facts, notes=common_notes(facts)), first)


def _walk(data: bytes, position: int, shared_palette: bytes) -> tuple[_Frame, int]:
    first: _Frame | None = None
    transparent: int | None = None
    n_frames = 0
    while _byte(data, position) != _TRAILER:
        if data[position] == _EXTENSION:
            if first is None and _byte(data, position + 1) == _GRAPHIC_CONTROL:
                transparent = _transparent_index(data, position)
            position = _after_blocks(data, position + 2)
        elif data[position] == _IMAGE:
            n_frames += 1
            frame, position = _image(data, position, shared_palette, transparent, is_wanted=first is None)
            first = first or frame
        else:
            raise corrupt(f"Expected a GIF block at byte {position}, got 0x{data[position]:02x}.")
    if first is None:
        raise corrupt("Expected at least one frame, got none.")
    return first, n_frames


def _image(
    data: bytes, position: int, shared_palette: bytes, transparent: int | None, *, is_wanted: bool
) -> tuple[_Frame | None, int]:
    """Read one frame and return it, if wanted, with the position after it."""
    if position + 10 > len(data):
        raise truncated(f"Expected an image descriptor at byte {position}, got the end of the file.")
    left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position + 1)
    own_palette, start = _palette(data, position + 10, flags)
    end = _after_blocks(data, start + 1)
    if not is_wanted:
        return None, end
    palette = own_palette or shared_palette
    return _Frame(left, top, width, height, bool(flags & 64), palette, transparent, data[start:end]), end


def _transparent_index(data: bytes, position: int) -> int | None:
    if position + 8 > len(data):
        raise truncated(f"Expected a graphic control block at byte {position}, got the end of the file.")
    if data[position + 2] != 4:
        raise corrupt(f"Expected a graphic control block of 4 bytes, got {data[position + 2]}.")
    return data[position + 6] if data[position + 3] & 1 else None


def _palette(data: bytes, position: int, flags: int) -> tuple[bytes, int]:
    """Return the colour table that the flags announce, and the position after it."""
    if not flags & 128:
        return b"", position
    end = position + 3 * 2 ** ((flags & 7) + 1)
    if end > len(data):
        raise truncated(f"Expected a colour table of {end - position} bytes, got the end of the file.")
    return data[position:end], end


def _after_blocks(data: bytes, position: int) -> int:
    """Skip a chain of data blocks and its terminator."""
    while size := _byte(data, position):
        position += 1 + size
    return position + 1


def _byte(data: bytes, position: int) -> int:
    if position >= len(data):
        raise truncated(f"Expected a GIF block or the trailer at byte {position}, got the end of the file.")
    return data[position]
