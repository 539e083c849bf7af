"""What a received file says about its own origin: Content Credentials, and text that its maker left.

Found at the level of bytes, nothing is verified: a C2PA manifest store is a JUMBF box (ISO 19566-5) that JPEG carries
in APP11 segments, PNG in a chunk `caBX`, WebP in a chunk `C2PA`, and ISO base media files such as AVIF in a `uuid` box
(C2PA 2.2, "Embedding manifests into various file formats"). It is cut away when a dataset is aligned, so what the
original had must be written down before. Invisible watermarks such as SynthID cannot be seen here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

MAX_TEXT_CHARACTERS = 200
"""Longest piece of a text chunk that is kept: workflows embedded by user interfaces run to megabytes."""

_MAX_TEXTS = 20
_PNG = b"\x89PNG\r\n\x1a\n"
_C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_AI_SOURCE_TYPES = (b"trainedAlgorithmicMedia", b"compositeWithTrainedAlgorithmicMedia", b"algorithmicMedia")


def file_notes(data: bytes) -> Mapping[str, Any]:
    """Return what a file says about its origin, as JSON values; empty when it says nothing.

    Returns:
        `c2pa`: true where a manifest store was found; `digital_source_type`: the IPTC word for generated media that its
        metadata names; `png_text`: keyword -> start of the text.

    Example:
        >>> file_notes(b"GIF89a")
        {}
    """
    notes: dict[str, Any] = {}
    blocks = list(_blocks(data))
    if any(_is_c2pa(kind, payload) for kind, payload in blocks):
        notes["c2pa"] = True
    metadata = b"".join(payload for kind, payload in blocks if kind in _METADATA)
    named = [word.decode() for word in _AI_SOURCE_TYPES if b"/" + word in metadata]
    if named:
        notes["digital_source_type"] = named[0]
    texts = dict(_png_texts(blocks)) if data.startswith(_PNG) else {}
    if texts:
        notes["png_text"] = texts
    return notes


_METADATA = (b"\xff\xe1", b"\xff\xeb", b"caBX", b"iTXt", b"eXIf", b"XMP ", b"EXIF", b"C2PA", b"uuid")


def _is_c2pa(kind: bytes, payload: bytes) -> bool:
    if kind == b"\xff\xeb":  # APP11 also carries other JPEG XT boxes
        return b"jumb" in payload[:32] and b"c2pa" in payload[:128]
    return kind in (b"caBX", b"C2PA") or (kind == b"uuid" and payload.startswith(_C2PA_UUID))


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and payload of each block of a JPEG, PNG, WebP or ISO base media file, as far as they are whole."""
    if data.startswith(_PNG):
        yield from _records(data, 8, ">I4s", trailer=4)
    elif data.startswith(b"\xff\xd8"):
        yield from _segments(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from _records(data, 12, "<4sI", pads=True)
    elif data[4:8] == b"ftyp":
        yield from _records(data, 0, ">I4s", counts_header=True)


def _records(
    data: bytes, position: int, header: str, *, trailer: int = 0, pads: bool = False, counts_header: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    while position + 8 <= len(data):
        first, second = struct.unpack_from(header, data, position)
        size, kind = (second, first) if isinstance(first, bytes) else (first, second)
        if counts_header:
            size = (size or len(data) - position) - 8  # 0 means: up to the end of the file
        if size < 0 or position + 8 + size > len(data):
            return
        if kind != b"IDAT":
            yield kind, data[position + 8 : position + 8 + size]
        position += 8 + size + trailer + (size % 2 if pads else 0)


def _segments(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        kind = data[position : position + 2]
        if kind == b"\xff\xda":  # the picture begins
            return
        size = int.from_bytes(data[position + 2 : position + 4])
        if size < 2 or position + 2 + size > len(data):
            return
        yield kind, data[position + 4 : position + 2 + size]
        position += 2 + size


def _png_texts(blocks: list[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    """Yield keyword and start of each text chunk; compressed text is named, not unpacked."""
    chunks = [(kind, payload) for kind, payload in blocks if kind in (b"tEXt", b"iTXt", b"zTXt")]
    for kind, payload in chunks[:_MAX_TEXTS]:
        keyword, _, rest = payload.partition(b"\0")
        if kind == b"iTXt":
            # keyword 0 | compressed | method | language 0 | translated keyword 0 | text
            text = b"(compressed)" if rest[:1] == b"\x01" else rest[2:].split(b"\0", 2)[-1]
            shown = text[: 4 * MAX_TEXT_CHARACTERS].decode("utf-8", "replace")
        else:
            shown = "(compressed)" if kind == b"zTXt" else rest[:MAX_TEXT_CHARACTERS].decode("latin-1")
        yield keyword[:79].decode("latin-1"), shown[:MAX_TEXT_CHARACTERS]
