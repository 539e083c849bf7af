"""TIFF: read the first directory, refuse what has no stated rule, and hand Pillow a directory of plain numbers.

Format: TIFF 6.0. Accepted: strips, chunky samples; 1, 8 or 16-bit grey, 8-bit palette, 8 or 16-bit RGB with or without
straight alpha, 8-bit CMYK; stored raw, LZW, Deflate or PackBits. Refused: float, signed and other depths, tiles,
planes, Lab and YCbCr, premultiplied alpha, BigTIFF, and JPEG inside TIFF, whose reader invents pixels when data is
missing.

The directory is written anew behind the strips: EXIF, ICC, sub-directories and further pages are out of reach.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

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
    StrictImageFile,
    alpha_over_white,
    band_by_band,
    check_pillow_ceiling,
    grey_from_16_bit,
    look_up,
    plain_rgb,
    rgba_palette,
)

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _EXTRA, _SAMPLE_FORMAT = 317, 320, 322, 338, 339
_EXIF_DIRECTORY, _ICC = 34665, 34675
_READ = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES),
    *(_ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR, _PREDICTOR, _COLOUR_MAP, _EXTRA, _SAMPLE_FORMAT),
}
_DEFAULTS = {
    **{
        _BITS: (1,),
        _COMPRESSION: (1,),
        _FILL_ORDER: (1,),
        _ORIENTATION: (1,),
        _SAMPLES: (1,),
        _ROWS_PER_STRIP: (2**32 - 1,),
    },
    **{_PLANAR: (1,), _PREDICTOR: (1,), _EXTRA: (), _SAMPLE_FORMAT: (1,)},
}
_NUMBERS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG
_RAW, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 8, 32946, 32773
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
# (photometric, samples, extra samples) -> mode; the depths that go with each mode stand below.
_LAYOUTS = {
    (_WHITE_IS_ZERO, 1, ()): "L",
    (_BLACK_IS_ZERO, 1, ()): "L",
    (_BLACK_IS_ZERO, 2, (2,)): "LA",
    (_RGB, 3, ()): "RGB",
    (_RGB, 4, (0,)): "RGBX",
    (_RGB, 4, (2,)): "RGBA",
    (_PALETTE, 1, ()): "P",
    (_CMYK, 4, ()): "CMYK",
}
_DEPTHS = {"L": (1, 8, 16), "LA": (8,), "RGB": (8, 16), "RGBX": (8, 16), "RGBA": (8, 16), "P": (8,), "CMYK": (8,)}
_MAX_PAGES = 10_000
_MAX_NUMBERS = 100_000

Tags = dict[int, tuple[int, ...]]


class _Reader(TiffImagePlugin.TiffImageFile, StrictImageFile):
    """Pillow's reader, strict about missing pixels."""


@dataclass(frozen=True, slots=True)
class TiffFile:
    """A TIFF whose first directory is sane and whose strips lie inside the file."""

    stored: ImageFacts
    data: bytes
    endian: str
    tags: Tags
    layout: str

    def rgb(self) -> RGBArray:
        """Decode the first page to RGB, shape (H, W, 3)."""
        with _Reader(BytesIO(self._with_plain_directory())) as image:
            return band_by_band(image, self._rule)

    def _rule(self, band: Image.Image) -> NDArray[np.uint8]:
        if self.layout == "P":
            # Writers fill the 16-bit table with v·257 or v·256; the high byte is right for both.
            planes = np.array(self.tags[_COLOUR_MAP], np.uint16).reshape(3, 256) >> 8
            return look_up(np.asarray(band), rgba_palette(planes.T.astype(np.uint8).tobytes()))
        if self.stored.mode == "I;16":
            colour = grey_from_16_bit(np.asarray(band)[..., None])
        else:
            colour = alpha_over_white(band) if self.stored.has_alpha else plain_rgb(band)
        return 255 - colour if self.tags[_PHOTOMETRIC] == (_WHITE_IS_ZERO,) else colour

    def _with_plain_directory(self) -> bytes:
        """Return the file with one new directory at its end that holds just what the decoder needs."""
        kept = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES)
        tags = {tag: self.tags[tag] for tag in kept}
        # Indices and inverted grey are read as they are; `_rule` gives them their meaning.
        is_grey = self.layout in ("L", "LA", "P")
        tags[_PHOTOMETRIC] = (_BLACK_IS_ZERO,) if is_grey else self.tags[_PHOTOMETRIC]
        tags[_ROWS_PER_STRIP] = (min(self.tags[_ROWS_PER_STRIP][0], self.tags[_HEIGHT][0]),)
        if self.tags[_PREDICTOR] != (1,):
            tags[_PREDICTOR] = self.tags[_PREDICTOR]
        if self.tags[_EXTRA]:
            tags[_EXTRA] = self.tags[_EXTRA]
        start = len(self.data) + len(self.data) % 2
        values_at = start + 2 + 12 * len(tags) + 4
        entries, values = b"", b""
        for tag, numbers in sorted(tags.items()):
            is_long = tag in (_WIDTH, _HEIGHT, _STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES)
            packed = struct.pack(f"{self.endian}{len(numbers)}{'I' if is_long else 'H'}", *numbers)
            head = struct.pack(self.endian + "HHI", tag, 4 if is_long else 3, len(numbers))
            if len(packed) <= 4:
                entries += head + packed.ljust(4, b"\0")
            else:
                entries += head + struct.pack(self.endian + "I", values_at + len(values))
                values += packed
        count, end_of_chain = struct.pack(self.endian + "H", len(tags)), bytes(4)
        header = self.data[:4] + struct.pack(self.endian + "I", start)
        return b"".join((header, self.data[8:], bytes(len(self.data) % 2), count, entries, end_of_chain, values))


def parse(data: bytes, limits: DecodeLimits) -> TiffFile:
    """Read the first directory of a TIFF and check its strips.

    Args:
        data: The file.
        limits: Bounds on the size.

    Returns:
        The file, ready to decode.

    Raises:
        ImageError: `truncated`, `corrupt`, `unsupported_variant` or a size reason.
    """
    endian = "<" if data[:2] == b"II" else ">"
    (start,) = _unpack(data, endian + "I", 4)
    tags, present = _directory(data, endian, start)
    width, height = _one(tags, _WIDTH), _one(tags, _HEIGHT)
    limits.check_size(width, height)
    check_pillow_ceiling(width, height, factor=1)
    layout = _layout(tags, present)
    _check_strips(tags, len(data), layout)
    depth, orientation = tags[_BITS][0], tags[_ORIENTATION][0]
    mode = {("L", 1): "1", ("L", 16): "I;16"}.get((layout, depth), layout.removesuffix("X"))
    facts = ImageFacts(
        codec="tiff",
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        mode=mode,
        bit_depth=depth,
        n_frames=_n_pages(data, endian, start),
        orientation=orientation if 1 <= orientation <= 8 else 1,
        has_icc=_ICC in present,
        has_alpha=layout in ("LA", "RGBA"),
        has_exif=_EXIF_DIRECTORY in present,
    )
    return TiffFile(replace(facts, notes=common_notes(facts)), data, endian, tags, layout)


def _directory(data: bytes, endian: str, start: int) -> tuple[Tags, set[int]]:
    """Read the tags that matter, each with all its numbers, and list all tags that are present."""
    tags: Tags = dict(_DEFAULTS)
    present: set[int] = set()
    (n_entries,) = _unpack(data, endian + "H", start)
    for position in range(start + 2, start + 2 + 12 * n_entries, 12):
        tag, kind, count = _unpack(data, endian + "HHI", position)
        if tag in present:
            raise corrupt(f"Expected TIFF tag {tag} once, got it twice.")
        present.add(tag)
        if tag not in _READ:
            continue
        if kind not in _NUMBERS or not 1 <= count <= _MAX_NUMBERS:
            raise corrupt(
                f"Expected 1 to {_MAX_NUMBERS} unsigned numbers in TIFF tag {tag}, got {count} of type {kind}."
            )
        size = count * struct.calcsize(_NUMBERS[kind])
        at = position + 8 if size <= 4 else _unpack(data, endian + "I", position + 8)[0]
        if at + size > len(data):
            raise truncated(f"Expected {size} bytes of TIFF tag {tag} at byte {at}, got the end of the file.")
        tags[tag] = struct.unpack_from(f"{endian}{count}{_NUMBERS[kind]}", data, at)
    return tags, present


def _layout(tags: Tags, present: set[int]) -> str:
    """Name the sample layout, or refuse it."""
    samples, bits = _one(tags, _SAMPLES), tags[_BITS]
    if _TILE_WIDTH in present or (_one(tags, _PLANAR) != 1 and samples > 1):
        raise unsupported("Expected a TIFF in strips with interleaved samples, got tiles or planes.")
    if set(tags[_SAMPLE_FORMAT]) != {1}:
        raise unsupported("Expected unsigned integer samples, got float, signed or other TIFF samples.")
    if _one(tags, _COMPRESSION) not in (_RAW, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS):
        raise unsupported(f"Expected raw, LZW, Deflate or PackBits TIFF data, got compression {tags[_COMPRESSION][0]}.")
    if _one(tags, _PREDICTOR) not in (1, 2) or _one(tags, _FILL_ORDER) != 1 or len(tags[_ORIENTATION]) != 1:
        raise unsupported("Expected predictor 1 or 2, fill order 1 and one orientation, got others.")
    layout = _LAYOUTS.get((_one(tags, _PHOTOMETRIC), samples, tags[_EXTRA]))
    if layout is None or len(set(bits)) != 1 or len(bits) not in (1, samples) or bits[0] not in _DEPTHS[layout]:
        raise unsupported(
            "Expected a TIFF layout listed in docs/decoding.md, got photometric "
            f"{tags[_PHOTOMETRIC][0]} with {samples} samples of {bits[0]} bits and extra samples {tags[_EXTRA]}."
        )
    tags[_BITS] = (bits[0],) * samples
    if layout == "P" and len(tags.get(_COLOUR_MAP, ())) != 768:
        raise corrupt("Expected a colour map of 768 numbers, got another or none.")
    return layout


def _check_strips(tags: Tags, n_bytes: int, layout: str) -> None:
    height, rows = tags[_HEIGHT][0], _one(tags, _ROWS_PER_STRIP)
    offsets, sizes = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_BYTES, ())
    if rows < 1:
        raise corrupt("Expected at least 1 row per strip, got 0.")
    n_strips = -(-height // rows)
    if len(offsets) != n_strips or len(sizes) != n_strips:
        raise corrupt(f"Expected {n_strips} TIFF strips, got {len(offsets)} offsets and {len(sizes)} sizes.")
    row_bytes = (tags[_WIDTH][0] * len(tags[_BITS]) * tags[_BITS][0] + 7) // 8
    for index, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        rows_here = min(rows, height - index * rows)
        if offset + size > n_bytes or (tags[_COMPRESSION] == (_RAW,) and size < rows_here * row_bytes):
            raise truncated(f"Expected strip {index} of {layout} pixels inside the file, got {n_bytes} bytes in all.")


def _n_pages(data: bytes, endian: str, start: int) -> int:
    seen: set[int] = set()
    while start:
        if start in seen or len(seen) >= _MAX_PAGES:
            raise corrupt(f"Expected a chain of at most {_MAX_PAGES} TIFF directories, got a loop or a longer one.")
        seen.add(start)
        (n_entries,) = _unpack(data, endian + "H", start)
        (start,) = _unpack(data, endian + "I", start + 2 + 12 * n_entries)
    return len(seen)


def _one(tags: Tags, tag: int) -> int:
    numbers = tags.get(tag, ())
    if len(numbers) != 1:
        raise corrupt(f"Expected one number in TIFF tag {tag}, got {len(numbers)}.")
    return numbers[0]


def _unpack(data: bytes, layout: str, position: int) -> tuple[int, ...]:
    if position + struct.calcsize(layout) > len(data):
        raise truncated(f"Expected a TIFF directory at byte {position}, got the end of the file.")
    return struct.unpack_from(layout, data, position)
