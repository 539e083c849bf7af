"""AVIF: walk the boxes for size and depth, hide EXIF, then let libavif decode the first frame.

Format: ISO/IEC 14496-12 boxes, HEIF (23008-12) and the AV1 image format. AV1 decoding is exact by its standard; the
step from YUV to 8-bit RGB is libavif's. Rotation and mirroring boxes (`irot`, `imir`) count; by the HEIF standard the
orientation inside EXIF does not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice

from PIL import AvifImagePlugin

from forgery_det.core.errors import ImageError
from forgery_det.core.image_exif import read_orientation
from forgery_det.core.image_facts import DecodeLimits, ImageFacts, RGBArray, common_notes, corrupt, truncated
from forgery_det.core.image_pixels import StrictImageFile, alpha_over_white, band_by_band, plain_rgb

# Boxes that hold boxes, with the bytes that stand before the first of them.
_CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0}
_MAX_BOXES = 20_000


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    end: int


class _Reader(AvifImagePlugin.AvifImageFile, StrictImageFile):
    """Pillow's reader, strict about missing pixels."""


@dataclass(frozen=True, slots=True)
class AvifFile:
    """An AVIF whose boxes are whole."""

    stored: ImageFacts
    data: bytes

    def rgb(self) -> RGBArray:
        """Decode the first frame to RGB, shape (H, W, 3), alpha laid over white."""
        with _Reader(BytesIO(self.data)) as image:
            return band_by_band(image, alpha_over_white if self.stored.has_alpha else plain_rgb)


def parse(data: bytes, limits: DecodeLimits) -> AvifFile:
    """Walk an AVIF container and read the headers of its first frame.

    Args:
        data: The file.
        limits: Bounds on the size.

    Returns:
        The file, ready to decode.

    Raises:
        ImageError: `truncated`, `corrupt` or a size reason.
    """
    if not AvifImagePlugin.SUPPORTED:
        raise ImageError("unsupported_format", "Expected a Pillow built with AVIF, got one without it.")
    boxes = list(islice(_boxes(data, 0, len(data)), _MAX_BOXES + 1))
    if len(boxes) > _MAX_BOXES:
        raise corrupt(f"Expected at most {_MAX_BOXES} AVIF boxes, got more.")
    for box in boxes:
        if box.kind == b"ispe" and box.end - box.start >= 12:
            limits.check_size(*struct.unpack_from(">II", data, box.start + 4))
    if not any(box.kind in (b"mdat", b"idat") for box in boxes):
        raise truncated("Expected picture data (a box mdat or idat), got none.")
    plain, has_exif = _without_exif(data, boxes)
    # Parses headers only: pixels are decoded by `load`.
    with _Reader(BytesIO(plain)) as image:
        (width, height), mode, n_frames, info = image.size, image.mode, image.n_frames, image.info
    limits.check_size(width, height)
    facts = ImageFacts(
        codec="avif",
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        mode=mode,
        bit_depth=_bit_depth(data, boxes),
        n_frames=n_frames,
        orientation=read_orientation(info.get("exif", b"")),
        has_icc="icc_profile" in info,
        has_alpha=mode in ("LA", "RGBA"),
        has_exif=has_exif,
    )
    return AvifFile(replace(facts, notes=common_notes(facts)), plain)


def _boxes(data: bytes, position: int, end: int) -> Iterator[_Box]:
    """Yield all boxes between two positions, containers followed by what they hold."""
    while position < end:
        if position + 8 > end:
            raise truncated(f"Expected an AVIF box at byte {position}, got {end - position} bytes.")
        size, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[position + 8 : position + 16]), 16
        elif size == 0:
            size = end - position
        if size < head:
            raise corrupt(f"Expected AVIF box {kind!r} of at least {head} bytes, got {size}.")
        if position + size > end:
            raise truncated(f"Expected {size} bytes in AVIF box {kind!r} at byte {position}, got {end - position}.")
        yield _Box(kind, position + head, position + size)
        if kind in _CONTAINERS:
            yield from _boxes(data, position + head + _CONTAINERS[kind], position + size)
        elif kind == b"iinf":
            version = data[position + head : position + head + 1]
            yield from _boxes(data, position + head + (6 if version == b"\0" else 8), position + size)
        position += size


def _without_exif(data: bytes, boxes: list[_Box]) -> tuple[bytes, bool]:
    """Rename EXIF items so that no decoder parses them; nothing else of the file changes."""
    plain = bytearray(data)
    found = False
    for box in boxes:
        version = data[box.start : box.start + 1]
        at = box.start + {b"\2": 8, b"\3": 10}.get(version, len(data))
        if box.kind == b"infe" and data[at : at + 4] == b"Exif":
            plain[at : at + 4] = b"skip"
            found = True
    return (bytes(plain), True) if found else (data, False)


def _bit_depth(data: bytes, boxes: list[_Box]) -> int:
    """Read the depth from the first AV1 configuration box: 8, 10 or 12; 8 where there is none."""
    for box in boxes:
        if box.kind == b"av1C" and box.end - box.start >= 3:
            flags = data[box.start + 2]
            return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8
