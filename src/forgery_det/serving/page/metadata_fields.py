"""Read the few fields of EXIF, XMP and IPTC that tell of an origin: camera, program, credit, kind of source.

EXIF is a TIFF structure (EXIF 2.32, section 4.6): two directories are read, no chain is followed, so no loop can hold a
reader. XMP is RDF in XML: the wanted properties are found by bounded patterns and no XML parser runs, so entities are
never expanded. IPTC IIM is a chain of small records (IIM 4.2, chapter 1). A broken block gives what stood before the
break.
"""

from __future__ import annotations

import html
import re
import struct
from collections.abc import Iterator

from forgery_det.core.image_exif import EXIF_PREFIX

MAX_VALUE_CHARS = 4_000
"""Of one value; a longer one is cut and ends in an ellipsis."""

_MAX_ENTRIES = 256
_EXIF_IFD = 0x8769
_EXIF_NAMES = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x0132: "DateTime",
    0x013B: "Artist",
    0x013C: "HostComputer",
    0x8298: "Copyright",
    0x9003: "DateTimeOriginal",
    0x9286: "UserComment",
    0xA434: "LensModel",
}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
_IPTC_NAMES = {65: "OriginatingProgram", 80: "By-line", 110: "Credit", 115: "Source", 120: "Caption"}
_XMP_NAMES = (
    "Iptc4xmpExt:DigitalSourceType",
    "Iptc4xmpExt:DigitalSourcefileType",
    "Iptc4xmpExt:AISystemUsed",
    "Iptc4xmpExt:AIPromptInformation",
    "xmp:CreatorTool",
    "photoshop:Credit",
    "photoshop:Source",
    "tiff:Make",
    "tiff:Model",
    "tiff:Software",
    "dc:description",
    "TC260:AIGC",
    "dcterms:provenance",
)
_XMP_CHARS = 300_000


def exif_fields(block: bytes) -> tuple[tuple[str, str], ...]:
    r"""Return the names and values of the wanted EXIF fields.

    Example:
        >>> entry = struct.pack(">HHI4s", 0x010F, 2, 4, b"Abc\0")
        >>> exif_fields(b"MM\0*\0\0\0\x08" + b"\0\x01" + entry)
        (('Make', 'Abc'),)
        >>> exif_fields(b"broken")
        ()
    """
    block = block.removeprefix(EXIF_PREFIX)
    endian = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if endian is None:
        return ()
    fields: dict[str, str] = {}
    (first,) = struct.unpack_from(endian + "I", block + bytes(8), 4)
    pointers = [first]
    for _ in range(2):  # directory 0 and the one directory it may point to
        for tag, payload in _entries(block, pointers[-1], endian):
            if tag == _EXIF_IFD and len(payload) == 4:
                pointers.append(struct.unpack(endian + "I", payload)[0])
            elif tag in _EXIF_NAMES:
                text = _user_comment(payload, endian) if tag == 0x9286 else _decode(payload)
                if text:
                    fields.setdefault(_EXIF_NAMES[tag], text)
        if len(pointers) == 1:
            break
    return tuple(fields.items())


def _entries(block: bytes, start: int, endian: str) -> Iterator[tuple[int, bytes]]:
    try:
        (count,) = struct.unpack_from(endian + "H", block, start)
        for index in range(min(count, _MAX_ENTRIES)):
            position = start + 2 + index * 12
            tag, kind, n_values = struct.unpack_from(endian + "HHI", block, position)
            size = _SIZES.get(kind, 0) * n_values
            at = position + 8 if size <= 4 else struct.unpack_from(endian + "I", block, position + 8)[0]
            yield tag, block[at : at + min(size, 4 * MAX_VALUE_CHARS)]
    except struct.error:
        return


def _user_comment(payload: bytes, endian: str) -> str:
    """EXIF puts eight bytes before a comment that name its encoding; UTF-16 comes in either byte order in practice."""
    prefix, rest = payload[:8], payload[8:]
    if prefix == b"UNICODE\0":
        zeros_first = rest[0::2].count(0) >= rest[1::2].count(0) if any(rest) else endian == ">"
        return tidy(rest.decode("utf-16-be" if zeros_first else "utf-16-le", "replace"))
    return _decode(rest if prefix in (b"ASCII\0\0\0", bytes(8), b"JIS\0\0\0\0\0") else payload)


def iptc_fields(block: bytes) -> tuple[tuple[str, str], ...]:
    r"""Return the names and values of the wanted IPTC records.

    Example:
        >>> iptc_fields(b"\x1c\x02\x6e\0\x04Mine")
        (('Credit', 'Mine'),)
    """
    fields: dict[str, str] = {}
    position = 0
    while block[position : position + 1] == b"\x1c" and position + 5 <= len(block):
        record, dataset, length = struct.unpack_from(">BBH", block, position + 1)
        if length & 0x8000:  # the extended form, for values above 32 kB: none of ours
            break
        if record == 2 and dataset in _IPTC_NAMES:
            fields.setdefault(_IPTC_NAMES[dataset], _decode(block[position + 5 : position + 5 + length]))
        position += 5 + length
    return tuple(fields.items())


def xmp_fields(block: bytes) -> tuple[tuple[str, str], ...]:
    """Return the names and values of the wanted XMP properties, written as attributes or as elements.

    Example:
        >>> xmp_fields(b'<rdf:Description xmp:CreatorTool="A &amp; B"/>')
        (('xmp:CreatorTool', 'A & B'),)
        >>> xmp_fields(b"<photoshop:Credit>Made with Google AI</photoshop:Credit>")
        (('photoshop:Credit', 'Made with Google AI'),)
    """
    text = block[: 4 * _XMP_CHARS].decode("utf-8", "replace")[:_XMP_CHARS]
    fields = []
    for name in _XMP_NAMES:
        value = _attribute(text, name) or _element(text, name)
        if value:
            fields.append((name, value))
    return tuple(fields)


def _attribute(text: str, name: str) -> str:
    found = re.search(rf"""\b{name}\s{{0,8}}=\s{{0,8}}(?:"([^"<]{{0,8000}})"|'([^'<]{{0,8000}})')""", text)
    return tidy(html.unescape(found[1] or found[2] or "")) if found else ""


def _element(text: str, name: str) -> str:
    """Return the text inside an element, or the address that it points to by `rdf:resource`."""
    start = text.find(f"<{name}")
    if start < 0:
        return ""
    end = text.find(f"</{name}", start, start + 16_000)
    head = text[start : start + 2_000].partition(">")[0]
    resource = re.search(r"""rdf:resource\s{0,8}=\s{0,8}["']([^"'<]{0,2000})["']""", head)
    if resource:
        return tidy(html.unescape(resource[1]))
    inner = text[start + len(head) + 1 : end] if end >= 0 else ""
    return tidy(html.unescape(re.sub(r"<[^<>]{0,500}>", " ", inner)))


def _decode(payload: bytes) -> str:
    """Text of unknown encoding: UTF-8 where it is valid, else Latin-1."""
    try:
        return tidy(payload.decode())
    except UnicodeDecodeError:
        return tidy(payload.decode("latin-1"))


def tidy(text: str) -> str:
    r"""Return printable text: control characters dropped, blanks at the ends too, cut to `MAX_VALUE_CHARS`.

    Example:
        >>> tidy("  a\0b\x1b[31m c\n")
        'ab[31m c'
    """
    kept = "".join(mark for mark in text[: 2 * MAX_VALUE_CHARS] if mark.isprintable() or mark in "\n\t").strip()
    return kept if len(kept) <= MAX_VALUE_CHARS else kept[: MAX_VALUE_CHARS - 1] + "…"
