"""Content Credentials and texts are found where each format keeps them, and nowhere else."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.core.image_io import encode_image
from forgery_det.recipes.generate.notes import file_notes
from synth.images import smooth_image
from synth.provenance import make_authority, sign

JUMBF = struct.pack(">I4s", 40, b"jumb") + struct.pack(">I4s", 32, b"jumd") + b"c2pa" + bytes(12) + b"\x03c2pa\0"
SOURCE_TYPE = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    data = encode_image(smooth_image(0, 32, 32), "png", None)
    made = b"".join(
        struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return data[:33] + made + data[33:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    data = encode_image(smooth_image(0, 32, 32), "jpeg", 90)
    made = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:2] + made + data[2:]


def webp(kind: bytes, body: bytes) -> bytes:
    data = encode_image(smooth_image(0, 32, 32), "webp", 90)
    grown = data[12:] + struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(grown) + 4) + b"WEBP" + grown


def avif(body: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0) + struct.pack(">I4s", 8 + len(body), b"uuid") + body


@pytest.mark.parametrize(
    "data",
    [
        png((b"caBX", JUMBF)),
        jpeg((0xEB, b"JP\x00\x01\x00\x00\x00\x01" + JUMBF)),
        webp(b"C2PA", JUMBF),
        avif(bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + JUMBF),
    ],
    ids=["png", "jpeg", "webp", "avif"],
)
def test_content_credentials_are_found(data: bytes) -> None:
    assert file_notes(data) == {"c2pa": True}


@pytest.mark.parametrize(("codec", "quality"), [("png", None), ("jpeg", 90), ("webp", 90)])
def test_files_signed_by_the_reference_implementation_are_recognised(codec: str, quality: int | None) -> None:
    plain = encode_image(smooth_image(0, 64, 64), codec, quality)
    signed = sign(plain, make_authority(), mime=f"image/{codec}")
    assert file_notes(plain) == {}
    assert file_notes(signed) == {"c2pa": True, "digital_source_type": "trainedAlgorithmicMedia"}


@pytest.mark.parametrize(
    "data",
    [
        png(),
        jpeg((0xEB, b"JP\x00\x01\x00\x00\x00\x01" + b"another JPEG XT box"), (0xE1, b"Exif\0\0c2pa jumb")),
        webp(b"XMP ", b"c2pa"),
        avif(bytes(16) + JUMBF),
        b"",
        b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xffcaBX",
    ],
)
def test_nothing_is_found_where_nothing_is(data: bytes) -> None:
    assert file_notes(data) == {}


@pytest.mark.parametrize(
    "data",
    [
        jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SOURCE_TYPE)),
        png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + SOURCE_TYPE)),
    ],
)
def test_the_iptc_word_for_generated_media_is_found(data: bytes) -> None:
    assert file_notes(data)["digital_source_type"] == "trainedAlgorithmicMedia"


def test_texts_are_kept_short() -> None:
    data = png(
        (b"tEXt", b"parameters\0a fox, steps 20" + b"x" * 5000),
        (b"iTXt", "Title\0\0\0de\0Titel\0Füchse".encode()),
        (b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 100)),
    )
    texts: dict[str, Any] = file_notes(data)["png_text"]
    assert texts["parameters"].startswith("a fox, steps 20")
    assert len(texts["parameters"]) == 200
    assert (texts["Title"], texts["workflow"]) == ("Füchse", "(compressed)")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([png((b"caBX", JUMBF)), jpeg((0xEB, JUMBF)), webp(b"C2PA", JUMBF)]), st.data())
def test_damaged_files_do_no_harm(data: bytes, draw: st.DataObject) -> None:
    position = draw.draw(st.integers(0, len(data) - 1))
    broken = data[:position] + bytes([draw.draw(st.integers(0, 255))]) + data[position + 1 :]
    file_notes(broken)
    file_notes(broken[: draw.draw(st.integers(0, len(broken)))])
