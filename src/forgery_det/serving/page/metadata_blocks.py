"""Find the blocks of metadata in an image file: text chunks, EXIF, XMP, IPTC and comments, without decoding a pixel.

Every walk is bounded: by the number of pieces, by the bytes of one piece, and by the bytes that compressed text may
unfold to. A broken container gives what was found up to the break. Nothing raises on any bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forgery_det.core.errors import ImageError
from forgery_det.core.image_sniff import sniff_codec

MAX_BLOCK_BYTES = 1 << 20
"""What is read of one block; a longer one is cut."""

MAX_BLOCKS = 64
"""Blocks that are kept of one file; of those that are parsed further (all but texts and comments), `MAX_PARSED`."""

MAX_PARSED = 6

_MAX_PIECES = 20_000
_XMP_APP1 = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_APP1 = b"Exif\0\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_IPTC_RESOURCE = 0x0404
_PARSED = ("exif", "xmp", "iptc")
_CODECS = ("jpeg", "png", "webp", "avif", "gif", "tiff")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of metadata.

    Args:
        kind: `text` (a PNG text chunk), `exif` (a TIFF structure), `xmp`, `iptc` (IIM records) or `comment`.
        key: Keyword of a text chunk, else empty.
        payload: The bytes, at most `MAX_BLOCK_BYTES`; text chunks as UTF-8.
    """

    kind: str
    key: str
    payload: bytes


def metadata_blocks(data: bytes) -> tuple[Block, ...]:
    r"""Return the metadata blocks of an image file, in the order in which they lie in it.

    Example:
        >>> metadata_blocks(b"\xff\xd8\xff\xfe\0\x07hello\xff\xd9")
        (Block(kind='comment', key='', payload=b'hello'),)
        >>> metadata_blocks(b"not an image")
        ()
    """
    try:
        walk = _WALKS[sniff_codec(data, _CODECS)]
    except ImageError:
        return ()
    found: list[Block] = []
    n_parsed = 0
    try:
        for block in walk(data):
            n_parsed += block.kind in _PARSED
            if block.kind in _PARSED and n_parsed > MAX_PARSED:
                continue
            found.append(Block(block.kind, block.key[:80], block.payload[:MAX_BLOCK_BYTES]))
            if len(found) == MAX_BLOCKS:
                break
    except (struct.error, IndexError):  # the container ends inside a piece: what came before stays
        pass
    return tuple(found)


def _png(data: bytes) -> Iterator[Block]:
    position = 8
    for _ in range(_MAX_PIECES):
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if kind in _PNG_TEXT:
            yield from _PNG_TEXT[kind](data[start : start + min(length, MAX_BLOCK_BYTES)])
        elif kind == b"eXIf":
            yield Block("exif", "", data[start : start + min(length, MAX_BLOCK_BYTES)])
        elif kind == b"IEND":
            return
        position = start + length + 4


def _png_plain(payload: bytes) -> Iterator[Block]:
    key, _, text = payload.partition(b"\0")
    yield _text(key, text.decode("latin-1").encode())


def _png_packed(payload: bytes) -> Iterator[Block]:
    key, _, packed = payload.partition(b"\0")
    yield _text(key, _unfold(packed[1:]).decode("latin-1").encode())


def _png_international(payload: bytes) -> Iterator[Block]:
    key, _, rest = payload.partition(b"\0")
    is_packed, rest = rest[:1] == b"\1", rest[2:]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]  # after the language and the translated keyword
    text = _unfold(text) if is_packed else text
    yield Block("xmp", "", text) if key == b"XML:com.adobe.xmp" else _text(key, text)


def _text(key: bytes, text: bytes) -> Block:
    return Block("text", key.decode("latin-1"), text)


def _unfold(packed: bytes) -> bytes:
    """Decompress at most `MAX_BLOCK_BYTES`: a bomb ends there."""
    try:
        return zlib.decompressobj().decompress(packed, MAX_BLOCK_BYTES)
    except zlib.error:
        return b""


_PNG_TEXT: dict[bytes, Callable[[bytes], Iterator[Block]]] = {
    b"tEXt": _png_plain,
    b"zTXt": _png_packed,
    b"iTXt": _png_international,
}


def _jpeg(data: bytes) -> Iterator[Block]:
    position = 2
    for _ in range(_MAX_PIECES):
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        marker = data[position + 1]
        if data[position] != 0xFF or marker in (0xD9, 0xDA):
            return  # the coded picture begins
        (length,) = struct.unpack_from(">H", data, position + 2)
        payload = data[position + 4 : position + 2 + length]
        if marker == 0xFE:
            yield Block("comment", "", payload)
        elif marker == 0xE1 and payload.startswith(_EXIF_APP1):
            yield Block("exif", "", payload[len(_EXIF_APP1) :])
        elif marker == 0xE1 and payload.startswith(_XMP_APP1):
            yield Block("xmp", "", payload[len(_XMP_APP1) :])
        elif marker == 0xED and payload.startswith(_PHOTOSHOP):
            yield from _photoshop(payload[len(_PHOTOSHOP) :])
        position += 2 + max(length, 2)


def _photoshop(payload: bytes) -> Iterator[Block]:
    """Walk Photoshop's image resources for the IPTC one."""
    position = 0
    while payload[position : position + 4] == b"8BIM":
        resource, name_bytes = struct.unpack_from(">HB", payload, position + 4)
        start = position + 6 + (name_bytes + 2) // 2 * 2  # the name and its length byte are padded to even
        (length,) = struct.unpack_from(">I", payload, start)
        if resource == _IPTC_RESOURCE:
            yield Block("iptc", "", payload[start + 4 : start + 4 + length])
        position = start + 4 + (length + 1) // 2 * 2


def _webp(data: bytes) -> Iterator[Block]:
    position = 12
    for _ in range(_MAX_PIECES):
        kind, length = struct.unpack_from("<4sI", data, position)
        payload = data[position + 8 : position + 8 + min(length, MAX_BLOCK_BYTES)]
        if kind == b"EXIF":
            yield Block("exif", "", payload.removeprefix(_EXIF_APP1))
        elif kind == b"XMP ":
            yield Block("xmp", "", payload)
        position += 8 + (length + 1) // 2 * 2


def _tiff(data: bytes) -> Iterator[Block]:
    yield Block("exif", "", data[:MAX_BLOCK_BYTES])
    yield from _packets(data)


def _packets(data: bytes) -> Iterator[Block]:
    """Find XMP by its packet, wherever it lies: TIFF tag, AVIF item, GIF extension; all store it as plain text."""
    start = data.find(b"<x:xmpmeta")
    if start >= 0:
        end = data.find(b"</x:xmpmeta>", start, start + MAX_BLOCK_BYTES)
        yield Block("xmp", "", data[start : end if end >= 0 else start + MAX_BLOCK_BYTES])


def _avif(data: bytes) -> Iterator[Block]:
    found = re.search(rb"Exif\0\0(?=II\*\0|MM\0\*)", data)
    if found:
        yield Block("exif", "", data[found.end() : found.end() + MAX_BLOCK_BYTES])
    yield from _packets(data)


_WALKS: dict[str, Callable[[bytes], Iterator[Block]]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "tiff": _tiff,
    "avif": _avif,
    "gif": _packets,
}
