"""PNG: check every chunk, and hand Pillow only what makes pixels.

A PNG is a chain of chunks with a CRC each (W3C PNG, third edition). Pillow does not check the CRCs of the pixel data,
and fills up with black where the compressed rows end too early; here both are checked. Text, EXIF, ICC and animation
chunks never reach the decoder, so a compressed bomb in one of them is never unpacked. Transparency is applied here, by
one rule for palette, colour key and alpha channel.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from forgery_det.core.image_exif import read_orientation
from forgery_det.core.image_facts import (
    DecodeLimits,
    ImageFacts,
    RGBArray,
    common_notes,
    corrupt,
    truncated,
    unsupported,
)
from forgery_det.core.image_pixels import (
    StrictBytes,
    StrictImageFile,
    alpha_over_white,
    band_by_band,
    composite_over_white,
    grey_from_16_bit,
    look_up,
    may_crop,
    plain_rgb,
    rgba_palette,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGB_ALPHA: (8, 16)}
_MODES = {_GREY: "L", _RGB: "RGB", _PALETTE: "P", _GREY_ALPHA: "LA", _RGB_ALPHA: "RGBA"}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_MAX_CHUNKS = 100_000
_INFLATE_BYTES = 1 << 20
_SLICE_BYTES = 1 << 16
_ONCE = (b"IHDR", b"PLTE", b"tRNS", b"IEND", b"eXIf", b"acTL", b"iCCP")


@dataclass(frozen=True, slots=True)
class _Chunk:
    kind: bytes
    payload: memoryview
    whole: memoryview


class _Reader(PngImagePlugin.PngImageFile, StrictImageFile):
    """Pillow's reader, strict about missing pixels."""


@dataclass(frozen=True, slots=True)
class PngFile:
    """A PNG whose chunks are whole and whose checksums hold."""

    stored: ImageFacts
    colour_type: int
    pieces: tuple[memoryview, ...]
    palette: bytes
    transparency: bytes

    def rgb(self) -> RGBArray:
        """Decode to RGB, shape (H, W, 3), transparency laid over white."""
        data = SIGNATURE + b"".join(self.pieces)
        with _Reader(StrictBytes(data)) as image:
            image.load()
            if self.stored.progressive or not _has_written_last_row(image):
                self._check_amount()
            return band_by_band(image, self._rule)

    def _check_amount(self) -> None:
        """Refuse a compressed stream that ends in good order but too early: Pillow would fill up with black."""
        expected = sum(rows * (1 + row_bytes) for rows, row_bytes in self._passes())
        inflate = zlib.decompressobj()
        amount = 0
        for pending in self._compressed():
            while pending and amount <= expected and not inflate.eof:
                amount += len(inflate.decompress(pending, _INFLATE_BYTES))
                pending = inflate.unconsumed_tail
        if amount < expected:
            amount += len(inflate.flush())
        if amount < expected:
            raise truncated(f"Expected {expected} bytes of PNG rows, got {amount}.")

    def _compressed(self) -> Iterator[bytes]:
        """Yield the compressed rows in short slices, so that what is left over is never copied at length."""
        for piece in self.pieces:
            if bytes(piece[4:8]) == b"IDAT":
                for start in range(8, len(piece) - 4, _SLICE_BYTES):
                    yield bytes(piece[start : min(start + _SLICE_BYTES, len(piece) - 4)])

    def _passes(self) -> Iterator[tuple[int, int]]:
        """Yield rows and bytes per row of each interlacing pass that is not empty."""
        channels = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}[self.colour_type]
        for left, top, step_x, step_y in _ADAM7 if self.stored.progressive else ((0, 0, 1, 1),):
            columns = -(-max(0, self.stored.width_px - left) // step_x)
            rows = -(-max(0, self.stored.height_px - top) // step_y)
            if columns and rows:
                yield rows, (columns * channels * self.stored.bit_depth + 7) // 8

    def _rule(self, band: Image.Image) -> NDArray[np.uint8]:
        if self.colour_type == _PALETTE:
            return look_up(np.asarray(band), rgba_palette(self.palette, self.transparency))
        if self.colour_type in (_GREY_ALPHA, _RGB_ALPHA):
            return alpha_over_white(band)
        if self.stored.mode == "I;16":
            samples = np.asarray(band)[..., None]
            return self._without_key(grey_from_16_bit(samples), samples, scale=1)
        colour = plain_rgb(band)
        return self._without_key(colour, colour, scale=255 // (2**self.stored.bit_depth - 1))

    def _without_key(self, colour: NDArray[np.uint8], samples: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        """Make the one colour that the file names as transparent white."""
        if not self.transparency:
            return colour
        n_channels = 1 if self.colour_type == _GREY else 3
        key = np.array(struct.unpack_from(f">{n_channels}H", self.transparency), np.uint32) * scale
        is_transparent = np.all(samples == key, axis=-1, keepdims=True)
        return composite_over_white(colour, np.where(is_transparent, 0, 255).astype(np.uint8))


def _has_written_last_row(image: Image.Image) -> bool:
    """Tell whether all rows surely arrived: they come in order over zeros, so the last one must not be all zero.

    This spares nearly every PNG a second decompression.
    """
    if not may_crop(image.width):
        return False
    return bool(np.asarray(image.crop((0, image.height - 1, *image.size))).any())


def parse(data: bytes, limits: DecodeLimits) -> PngFile:
    """Walk a PNG from signature to `IEND`.

    Args:
        data: The file.
        limits: Bounds on the size.

    Returns:
        The file, ready to decode.

    Raises:
        ImageError: `truncated`, `corrupt` (also any wrong checksum), `unsupported_variant` or a size reason.
    """
    chunks = _walk(memoryview(data), limits)
    _check_order(chunks)
    first = {chunk.kind: bytes(chunk.payload) for chunk in chunks if chunk.kind in _ONCE}
    width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", first[b"IHDR"])
    if (colour_type == _PALETTE) and not (0 < len(first.get(b"PLTE", b"")) <= 768 and len(first[b"PLTE"]) % 3 == 0):
        raise corrupt("Expected a palette of 1 to 256 colours, got none or a broken one.")
    transparency = _transparency(first.get(b"tRNS"), colour_type, depth)
    wanted = (b"IHDR", b"PLTE", b"IDAT", b"IEND") if colour_type == _PALETTE else (b"IHDR", b"IDAT", b"IEND")
    facts = ImageFacts(
        codec="png",
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        mode={(_GREY, 1): "1", (_GREY, 16): "I;16"}.get((colour_type, depth), _MODES[colour_type]),
        bit_depth=depth,
        n_frames=_n_frames(chunks),
        progressive=bool(interlace),
        orientation=read_orientation(first.get(b"eXIf", b"")),
        has_icc=b"iCCP" in first,
        has_alpha=bool(transparency) or colour_type in (_GREY_ALPHA, _RGB_ALPHA),
        has_exif=b"eXIf" in first,
    )
    return PngFile(
        stored=replace(facts, notes=common_notes(facts)),
        colour_type=colour_type,
        pieces=tuple(chunk.whole for chunk in chunks if chunk.kind in wanted),
        palette=first.get(b"PLTE", b""),
        transparency=transparency,
    )


def _walk(data: memoryview, limits: DecodeLimits) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    position = len(SIGNATURE)
    while not chunks or chunks[-1].kind != b"IEND":
        if position + 8 > len(data):
            raise truncated(f"Expected a PNG chunk at byte {position}, got the end of the file (no IEND).")
        length, kind = struct.unpack_from(">I4s", data, position)
        if not kind.isalpha():
            raise corrupt(f"Expected a PNG chunk name at byte {position + 4}, got {kind!r}.")
        end = position + 12 + length
        if end > len(data):
            raise truncated(f"Expected {length} bytes in chunk {kind.decode()}, got the end of the file.")
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != checksum:
            raise corrupt(f"Expected checksum {checksum:08x} in chunk {kind.decode()} at byte {position}, got another.")
        chunk = _Chunk(kind, data[position + 8 : end - 4], data[position:end])
        if not chunks:
            _check_header(chunk, limits)
        elif kind[:1].isupper() and kind not in (b"PLTE", b"IDAT", b"IEND"):
            raise unsupported(f"Expected no further critical PNG chunks, got {kind.decode()}.")
        if len(chunks) >= _MAX_CHUNKS:
            raise corrupt(f"Expected at most {_MAX_CHUNKS} PNG chunks, got more.")
        chunks.append(chunk)
        position = end
    return chunks


def _check_header(chunk: _Chunk, limits: DecodeLimits) -> None:
    if chunk.kind == b"CgBI":
        raise unsupported("Expected a standard PNG, got Apple's CgBI variant.")
    if chunk.kind != b"IHDR" or len(chunk.payload) != 13:
        raise corrupt(f"Expected a header chunk IHDR of 13 bytes first, got {chunk.kind.decode()}.")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunk.payload)
    limits.check_size(width, height)
    if depth not in _DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise corrupt(f"Expected a valid PNG header, got colour type {colour_type} with {depth} bits.")


def _check_order(chunks: list[_Chunk]) -> None:
    pixel_data = [index for index, chunk in enumerate(chunks) if chunk.kind == b"IDAT"]
    if not pixel_data or pixel_data[-1] - pixel_data[0] + 1 != len(pixel_data):
        raise corrupt("Expected one unbroken run of IDAT chunks, got none or several.")
    kinds = [chunk.kind for chunk in chunks]
    if any(kinds.count(kind) > 1 for kind in _ONCE):
        raise corrupt("Expected each of IHDR, PLTE, tRNS, eXIf, acTL, iCCP once, got one twice.")


def _transparency(chunk: bytes | None, colour_type: int, depth: int) -> bytes:
    """Return the usable transparency chunk, empty where the format gives it no meaning."""
    if chunk is None or colour_type in (_GREY_ALPHA, _RGB_ALPHA):
        return b""
    if colour_type == _RGB and depth == 16:
        raise unsupported("Expected no colour key in a 16-bit RGB PNG (its low bytes are dropped), got one.")
    if (colour_type == _GREY and len(chunk) != 2) or (colour_type == _RGB and len(chunk) != 6) or len(chunk) > 256:
        raise corrupt(f"Expected a transparency chunk that fits the colour type, got {len(chunk)} bytes.")
    return chunk


def _n_frames(chunks: list[_Chunk]) -> int:
    """Count frames; a default image that stands outside the animation counts as one more."""
    kinds = [chunk.kind for chunk in chunks]
    if b"acTL" not in kinds:
        return 1
    is_default_image_animated = b"fcTL" in kinds[: kinds.index(b"IDAT")]
    return max(1, kinds.count(b"fcTL") + (not is_default_image_animated))
