"""WebP: walk the RIFF chunks, then let libwebp decode the first frame.

Format: RFC 9649. The walk finds the size, the frames and the alpha flag, and proves that the container is whole.
Bytes after the container are ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice

from PIL import WebPImagePlugin

from forgery_det.core.errors import ImageError
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
    StrictImageFile,
    alpha_over_white,
    band_by_band,
    check_pillow_ceiling,
    plain_rgb,
)

_HAS_ALPHA = 0x10
_MAX_CHUNKS = 100_000


class _Reader(WebPImagePlugin.WebPImageFile, StrictImageFile):
    """Pillow's reader, strict about missing pixels."""


@dataclass(frozen=True, slots=True)
class WebpFile:
    """A WebP whose chunks are whole."""

    stored: ImageFacts
    container: bytes

    def rgb(self) -> RGBArray:
        """Decode the first frame to RGB, shape (H, W, 3), alpha laid over white."""
        with _Reader(BytesIO(self.container)) as image:
            if image.size != (self.stored.width_px, self.stored.height_px):
                raise corrupt(f"Expected {self.stored.width_px} x {self.stored.height_px} px, got {image.size}.")
            return band_by_band(image, alpha_over_white if image.mode == "RGBA" else plain_rgb)


def parse(data: bytes, limits: DecodeLimits) -> WebpFile:
    """Walk a WebP container.

    Args:
        data: The file.
        limits: Bounds on the size.

    Returns:
        The file, ready to decode.

    Raises:
        ImageError: `truncated`, `corrupt`, `unsupported_variant` or a size reason.
    """
    if not WebPImagePlugin.SUPPORTED:
        raise ImageError("unsupported_format", "Expected a Pillow built with WebP, got one without it.")
    end = 8 + struct.unpack_from("<I", data.ljust(8, b"\0"), 4)[0]
    if end > len(data):
        raise truncated(f"Expected {end} bytes as the RIFF header says, got {len(data)}.")
    chunks = list(islice(_chunks(data, 12, end), _MAX_CHUNKS + 1))
    if not 1 <= len(chunks) <= _MAX_CHUNKS:
        raise corrupt(f"Expected 1 to {_MAX_CHUNKS} WebP chunks, got {len(chunks) or 'none'}.")
    width, height, has_alpha = _header(*chunks[0])
    limits.check_size(width, height)
    check_pillow_ceiling(width, height, factor=2)
    kinds = [kind for kind, _ in chunks]
    exif = next((payload for kind, payload in chunks if kind == b"EXIF"), b"")
    facts = ImageFacts(
        codec="webp",
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        mode="RGBA" if has_alpha else "RGB",
        bit_depth=8,
        n_frames=max(1, kinds.count(b"ANMF")),
        orientation=read_orientation(exif),
        has_icc=b"ICCP" in kinds,
        has_alpha=has_alpha,
        has_exif=b"EXIF" in kinds,
    )
    notes = common_notes(facts) + (("webp_lossless",) if b"VP8L" in kinds else ())
    return WebpFile(replace(facts, notes=notes), data[:end])


def _chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while position + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, position)
        if position + 8 + size > end:
            raise truncated(f"Expected {size} bytes in WebP chunk {kind!r}, got {end - position - 8}.")
        # Pixel data is not copied: its first bytes hold all that the facts need.
        yield kind, data[position + 8 : position + 8 + (size if kind == b"EXIF" else min(size, 16))]
        position += 8 + size + size % 2


def _header(kind: bytes, payload: bytes) -> tuple[int, int, bool]:
    """Return width, height and whether there is alpha, from the first chunk."""
    if kind == b"VP8X" and len(payload) >= 10:
        width, height = (1 + int.from_bytes(payload[at : at + 3], "little") for at in (4, 7))
        return width, height, bool(payload[0] & _HAS_ALPHA)
    if kind == b"VP8L" and len(payload) >= 5 and payload[0] == 0x2F:
        bits = int.from_bytes(payload[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    if kind == b"VP8 " and len(payload) >= 10 and payload[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", payload, 6)
        return width & 0x3FFF, height & 0x3FFF, False
    raise unsupported(f"Expected a VP8, VP8L or VP8X chunk with its header first, got {kind!r}.")
