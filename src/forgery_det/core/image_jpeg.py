"""JPEG: walk the markers, estimate the quality, and hand Pillow only what makes pixels.

A JPEG is a chain of marker segments (ITU-T T.81, annex B). The walk keeps frame headers, tables, scans and the two
segments that decide the colour transform (JFIF, Adobe); EXIF, ICC, comments, thumbnails and the second pictures of
phone files (MPO) never reach the decoder.

libjpeg invents grey pixels when coded data ends early but an end marker follows. For a file of one sequential scan the
end marker is therefore withheld: a decoder that runs out of data then stops, and the file is refused as truncated.

The quality estimate inverts the IJG scaling of the example luminance table T (T.81, table K.1):

    s(q) = 5000 / q  if q < 50 else 200 - 2q,        T_q = clip(floor((T·s(q) + 50) / 100), 1, 255)
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import JpegImagePlugin

from forgery_det.core.image_exif import EXIF_PREFIX, read_orientation
from forgery_det.core.image_facts import (
    DecodeLimits,
    ImageFacts,
    RGBArray,
    common_notes,
    corrupt,
    truncated,
    unsupported,
)
from forgery_det.core.image_pixels import StrictBytes, StrictImageFile, band_by_band, plain_rgb

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF_HUFFMAN = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential, progressive
_SOF_OTHER = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_DHT, _DQT, _DRI, _SOS = 0xC4, 0xDB, 0xDD, 0xDA
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
# Inside coded data FF is followed by 00 (stuffing) or a restart marker; anything else starts the next segment.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7])")
_FILL = 0xFF  # any number of FF bytes may stand before a marker
_MAX_SCANS = 256
_MAX_SEGMENTS = 100_000
# Longer than the decoder's look-ahead, and all ones: the codes that use the most bits, so a gap is not bridged by it.
_RUN_OUT = b"\xfe" * 16

_SUBSAMPLING: dict[tuple[float, float], str] = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}
# T.81, table K.1, row by row.
_K1_LUMINANCE = np.array(
    [
        *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
        *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
        *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
        *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
    ],
    np.int64,
)
_ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))


def _ijg_tables() -> NDArray[np.int64]:
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((_K1_LUMINANCE[None] * scale[:, None] + 50) // 100, 1, 255)


_IJG_TABLES = _ijg_tables()


def estimate_jpeg_quality(luminance_table: Sequence[int]) -> int:
    """Estimate the quality setting from the luminance quantisation table.

    A table made by the IJG library, libjpeg-turbo or Pillow gives its setting back exactly. For other tables (cameras,
    Photoshop) the result is the setting whose table is nearest in summed absolute difference; ties take the higher one.

    Args:
        luminance_table: The 64 steps row by row (natural order, not zigzag).

    Returns:
        Quality in [1, 100].

    Raises:
        ImageError: The table does not have 64 positive steps.

    >>> estimate_jpeg_quality([1] * 64)
    100
    """
    table = np.asarray(luminance_table, np.int64)
    if table.shape != (64,) or table.min() < 1:
        raise corrupt(f"Expected 64 quantisation steps of at least 1, got {list(luminance_table)[:64]}.")
    distance = np.abs(_IJG_TABLES - table).sum(axis=1)
    return 100 - int(np.argmin(distance[::-1]))


@dataclass(slots=True)
class _Walk:
    """What the walk over the markers collects."""

    kept: list[memoryview] = field(default_factory=list)
    tables: dict[int, list[int]] = field(default_factory=dict)
    frame: tuple[int, bytes] | None = None
    first_scan_components: int = 0
    n_scans: int = 0
    n_segments: int = 0
    exif: bytes | None = None
    has_icc: bool = False
    is_mpo: bool = False
    has_tail: bool = False


class _Reader(JpegImagePlugin.JpegImageFile, StrictImageFile):
    """Pillow's reader, strict about missing pixels."""


@dataclass(frozen=True, slots=True)
class JpegFile:
    """A JPEG whose markers are whole."""

    stored: ImageFacts
    pieces: tuple[bytes | memoryview, ...]

    def rgb(self) -> RGBArray:
        """Decode to RGB, shape (H, W, 3); grey is repeated, CMYK and YCCK are read in Adobe's inverted polarity."""
        with _Reader(StrictBytes(b"".join(self.pieces))) as image:
            return band_by_band(image, plain_rgb)


def parse(data: bytes, limits: DecodeLimits) -> JpegFile:
    """Walk a JPEG from start to end marker.

    Args:
        data: The file.
        limits: Bounds on the size.

    Returns:
        The file, ready to decode.

    Raises:
        ImageError: `truncated`, `corrupt`, `unsupported_variant` or a size reason.
    """
    walk = _walk(data, limits)
    if walk.frame is None or not walk.n_scans:
        raise corrupt("Expected a frame header and a scan before the end marker, got neither or one.")
    marker, frame = walk.frame
    n_components = frame[5]
    is_one_sequential_scan = marker != 0xC2 and walk.n_scans == 1 and walk.first_scan_components == n_components
    tail = _RUN_OUT if is_one_sequential_scan else _EOI
    return JpegFile(_facts(data, walk, marker, frame), (_SOI, *walk.kept, tail))


def _facts(data: bytes, walk: _Walk, marker: int, frame: bytes) -> ImageFacts:
    height, width = struct.unpack_from(">HH", frame, 1)
    table = walk.tables.get(frame[8])
    if table is None:
        raise corrupt(f"Expected quantisation table {frame[8]} that the frame header names, got none.")
    quality = estimate_jpeg_quality(table)
    facts = ImageFacts(
        codec="jpeg",
        width_px=width,
        height_px=height,
        n_bytes=len(data),
        mode={1: "L", 3: "RGB", 4: "CMYK"}[frame[5]],
        bit_depth=8,
        jpeg_quality=quality,
        chroma_subsampling=_subsampling(frame),
        progressive=marker == 0xC2,
        orientation=1 if walk.exif is None else read_orientation(walk.exif),
        has_icc=walk.has_icc,
        has_exif=walk.exif is not None,
    )
    own = {
        "nonstandard_jpeg_tables": table != _IJG_TABLES[quality - 1].tolist(),
        "mpo_first_image": walk.is_mpo,
        "trailing_bytes_ignored": walk.has_tail,
    }
    return replace(facts, notes=common_notes(facts) + tuple(note for note, holds in own.items() if holds))


def _subsampling(frame: bytes) -> str:
    if frame[5] == 1:
        return "4:0:0"
    (luma_h, luma_v), (chroma_h, chroma_v) = divmod(frame[7], 16), divmod(frame[10], 16)
    ratio = (luma_h / chroma_h, luma_v / chroma_v)
    return _SUBSAMPLING.get(ratio, f"{luma_h}x{luma_v}:{chroma_h}x{chroma_v}")


def _walk(data: bytes, limits: DecodeLimits) -> _Walk:
    walk = _Walk()
    position = 2
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            raise truncated(f"Expected the JPEG end marker FFD9, got the end of the file at byte {len(data)}.")
        marker, position = found[1][0], found.end()
        if marker == _FILL:
            position -= 1
            continue
        walk.n_segments += 1
        if walk.n_segments > _MAX_SEGMENTS:
            raise corrupt(f"Expected at most {_MAX_SEGMENTS} JPEG segments, got more.")
        if bytes((0xFF, marker)) == _EOI:
            walk.has_tail = position < len(data)
            return walk
        if bytes((0xFF, marker)) == _SOI:
            raise corrupt("Expected one start marker, got a second one before the end marker.")
        if position + 2 > len(data):
            raise truncated(f"Expected a segment length at byte {position}, got the end of the file.")
        end = position + int.from_bytes(data[position : position + 2])
        if end < position + 2:
            raise corrupt(f"Expected a segment of at least 2 bytes at byte {position}, got {end - position}.")
        if end > len(data):
            raise truncated(
                f"Expected a segment of {end - position} bytes at byte {position}, got {len(data) - position}."
            )
        body = data[position + 2 : end]
        if marker == _SOS:
            following = _MARKER.search(data, end)
            end = len(data) if following is None else following.start()
        _take(walk, marker, body, memoryview(data)[found.end() - 2 : end], limits)
        position = end


def _take(walk: _Walk, marker: int, body: bytes, whole: memoryview, limits: DecodeLimits) -> None:
    """File one segment: `body` is its payload, `whole` runs from its marker to its end, coded data included."""
    if marker in _SOF_HUFFMAN:
        _check_frame(walk, body, limits)
        walk.frame = (marker, body)
    elif marker in _SOF_OTHER:
        raise unsupported(f"Expected a baseline, extended or progressive Huffman JPEG, got frame type {marker - 0xC0}.")
    elif marker == _DQT:
        walk.tables.update(_read_tables(body))
    elif marker == _SOS:
        if walk.frame is None or not body:
            raise corrupt("Expected a frame header before the scan, got a scan first.")
        walk.n_scans += 1
        walk.first_scan_components = walk.first_scan_components or body[0]
        if walk.n_scans > _MAX_SCANS:
            raise corrupt(f"Expected at most {_MAX_SCANS} scans, got more.")
    elif marker == _APP1 and body.startswith(EXIF_PREFIX):
        walk.exif = body if walk.exif is None else walk.exif
    elif marker == _APP2:
        walk.has_icc |= body.startswith(b"ICC_PROFILE\0")
        walk.is_mpo |= body.startswith(b"MPF\0")
    decides_colour = (marker == _APP0 and body[:4] == b"JFIF") or (marker == _APP14 and body[:5] == b"Adobe")
    if marker in (*_SOF_HUFFMAN, _DHT, _DQT, _DRI, _SOS) or decides_colour:
        walk.kept.append(whole)


def _check_frame(walk: _Walk, body: bytes, limits: DecodeLimits) -> None:
    if walk.frame is not None:
        raise corrupt("Expected one frame header, got two.")
    if len(body) < 9 or len(body) != 6 + 3 * body[5]:
        raise corrupt(f"Expected a frame header of 6 + 3 n bytes, got {len(body)}.")
    precision, height, width, n_components = struct.unpack_from(">BHHB", body)
    limits.check_size(width, height)
    if precision != 8:
        raise unsupported(f"Expected 8-bit JPEG samples, got {precision}-bit.")
    if n_components not in (1, 3, 4):
        raise unsupported(f"Expected 1, 3 or 4 JPEG components, got {n_components}.")
    if any(not (1 <= factors >> 4 <= 4 and 1 <= factors & 15 <= 4) for factors in body[7::3]):
        raise corrupt("Expected sampling factors in [1, 4], got others.")


def _read_tables(body: bytes) -> dict[int, list[int]]:
    tables: dict[int, list[int]] = {}
    position = 0
    while position < len(body):
        is_wide, name = body[position] >> 4, body[position] & 15
        steps = body[position + 1 : position + 1 + (128 if is_wide else 64)]
        if len(steps) != (128 if is_wide else 64):
            raise corrupt(f"Expected {128 if is_wide else 64} bytes of quantisation table {name}, got {len(steps)}.")
        zigzag = np.frombuffer(steps, ">u2" if is_wide else np.uint8)
        natural = np.empty(64, np.int64)
        natural[_ZIGZAG] = zigzag
        tables[name] = natural.tolist()
        position += 1 + len(steps)
    return tables
