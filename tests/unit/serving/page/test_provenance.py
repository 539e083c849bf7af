"""What a file says of itself: files signed here, metadata written by Pillow and by hand, and hostile files."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from forgery_det.serving.page.c2pa_manifest import read_manifest
from forgery_det.serving.page.metadata_blocks import MAX_BLOCK_BYTES, MAX_BLOCKS, metadata_blocks
from forgery_det.serving.page.metadata_fields import MAX_VALUE_CHARS, exif_fields, xmp_fields
from forgery_det.serving.page.origin_marks import SOURCE_TYPES
from forgery_det.serving.page.provenance import MAX_FIELDS, Provenance, provenance
from synth.provenance import CAPTURED, TRAINED, Authority, jpeg_with, make_authority, sign, xmp

SETTINGS = "a leopard in the jungle\nNegative prompt: blurry\nSteps: 28, Sampler: Euler a, CFG scale: 7, Seed: 12345"
MIMES = {codec: f"image/{codec.lower()}" for codec in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "GIF")}
XMP_APP1 = b"http://ns.adobe.com/xap/1.0/\0"


def encoded(codec: str = "JPEG", **settings: Any) -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(target, codec, **settings)
    return target.getvalue()


def png_with(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return encoded("PNG", pnginfo=info)


def exif(**values: Any) -> bytes:
    """EXIF by Pillow, by the names of `PIL.ExifTags.Base`."""
    from PIL.ExifTags import Base

    block = Image.Exif()
    for name, value in values.items():
        block[Base[name]] = value
    return block.tobytes()


def told(found: Provenance) -> list[tuple[str, str | None]]:
    return [(mark.says, mark.generator) for mark in found.marks]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture(scope="module")
def signed(authority: Authority) -> bytes:
    return sign(encoded(), authority)


class TestC2pa:
    @pytest.mark.parametrize(
        "codec",
        # The library takes seconds to sign a GIF (it reads one in milliseconds).
        [pytest.param(codec, marks=[pytest.mark.slow] * (codec == "GIF")) for codec in MIMES],
    )
    def test_a_signed_picture_says_who_and_how(self, codec: str, authority: Authority) -> None:
        found = provenance(sign(encoded(codec), authority, mime=MIMES[codec])).c2pa
        assert (found.state, found.says) == ("valid", "generated")
        assert (found.signer, found.issuer) == ("Test Signer", "Test Camera Works")
        assert found.claim_generator == "Test Painter 3.1"
        assert [(step.action, step.software, step.source_type) for step in found.actions] == [
            ("c2pa.created", "Test Painter 3.1", TRAINED)
        ]
        assert found.problems == ("signingCredential.untrusted",)
        assert "not checked against a trust list" in found.words

    def test_with_trust_anchors_the_signer_is_trusted(self, signed: bytes, authority: Authority) -> None:
        found = read_manifest(signed, trust_anchors=authority.root_pem.decode())
        assert (found.state, found.problems) == ("trusted", ())
        stranger = make_authority("Somebody Else")
        assert read_manifest(signed, trust_anchors=stranger.root_pem.decode()).state == "valid"

    def test_a_picture_changed_after_signing_does_not_validate_and_claims_nothing(self, signed: bytes) -> None:
        changed = bytearray(signed)
        changed[-100] ^= 1  # in the coded picture
        found = provenance(bytes(changed)).c2pa
        assert (found.state, found.says) == ("invalid", None)
        assert "assertion.dataHash.mismatch" in found.problems
        assert "does not validate" in found.words

    def test_a_changed_manifest_does_not_validate(self, signed: bytes) -> None:
        assert signed.count(b"Test Painter") >= 1
        assert provenance(signed.replace(b"Test Painter", b"Best Painter")).c2pa.state == "invalid"

    def test_a_capture_is_a_capture_and_with_generated_parts_an_edit(self, authority: Authority) -> None:
        assert read_manifest(sign(encoded(), authority, source_type=CAPTURED)).says == "captured"
        composite = TRAINED.replace("trained", "compositeWithTrained")
        edited = sign(encoded(), authority, source_type=CAPTURED, edited_with=composite)
        assert read_manifest(edited).says == "edited_with_ai"
        painted_over = sign(encoded(), authority, source_type=CAPTURED, edited_with=TRAINED)
        assert read_manifest(painted_over).says == "edited_with_ai"

    def test_ingredients_are_listed(self, authority: Authority) -> None:
        found = read_manifest(sign(encoded(), authority, ingredient=encoded("JPEG", quality=30)))
        assert [(one.title, one.relationship, one.codec) for one in found.ingredients] == [
            ("the picture before", "componentOf", "image/jpeg")
        ]

    def test_without_a_manifest_absence_is_said_to_prove_nothing(self) -> None:
        found = provenance(encoded()).c2pa
        assert found.state == "absent"
        assert "proves nothing" in found.words

    def test_a_cut_file_is_unreadable(self, signed: bytes) -> None:
        assert read_manifest(signed[: len(signed) // 2]).state == "unreadable"

    def test_without_the_package_that_is_said(self, signed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "c2pa", None)
        found = read_manifest(signed)
        assert found.state == "not_installed"
        assert "c2pa-python is not installed" in found.words

    def test_a_remote_manifest_is_named_and_not_fetched(self) -> None:
        packet = xmp("", 'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="https://example.org/m.c2pa"')
        found = provenance(jpeg_with(encoded(), 0xE1, XMP_APP1 + packet)).c2pa
        assert (found.state, found.problems) == ("remote", ("https://example.org/m.c2pa",))


class TestMarks:
    @pytest.mark.parametrize(
        ("texts", "generator"),
        [
            ({"parameters": SETTINGS}, "Stable Diffusion web UI"),
            ({"prompt": '{"3": {"inputs": {}, "class_type": "KSampler"}}'}, "ComfyUI"),
            ({"workflow": '{"last_node_id": 9, "nodes": []}'}, "ComfyUI"),
            ({"invokeai_metadata": '{"positive_prompt": "a fox"}'}, "InvokeAI"),
            ({"sd-metadata": "{}"}, "InvokeAI"),
            ({"Software": "NovelAI", "Description": "a fox"}, "NovelAI"),
            ({"Comment": '{"prompt": "a fox", "uc": "blurry", "sampler": "k_euler"}'}, "NovelAI"),
            ({"Description": "a red fox --v 6.1 Job ID: 01234567-89ab-cdef-0123-456789abcdef"}, "Midjourney"),
            ({"fooocus_scheme": "fooocus"}, "Fooocus"),
            ({"parameters": '{"sui_image_params": {"prompt": "a fox"}}'}, "SwarmUI"),
            ({"AIGC": '{"Label":"1","ContentProducer":"x"}'}, "a generator under China's labelling rule"),
        ],
    )
    def test_png_text_names_its_generator(self, texts: dict[str, str], generator: str) -> None:
        assert told(provenance(png_with(**texts))) == [("generated", generator)]

    @pytest.mark.parametrize("is_packed", [False, True])
    def test_every_kind_of_text_chunk_is_read(self, is_packed: bool) -> None:
        info = PngImagePlugin.PngInfo()
        info.add_text("parameters", SETTINGS, zip=is_packed)
        info.add_itxt("note", "Größe ✓", zip=is_packed)
        fields = provenance(encoded("PNG", pnginfo=info)).fields
        assert [(field.key, field.value) for field in fields] == [("parameters", SETTINGS), ("note", "Größe ✓")]

    @pytest.mark.parametrize(
        "texts",
        [
            {"parameters": "curve 3"},
            {"prompt": "see https://example.org"},
            {"Software": "GIMP 2.10"},
            {"Description": "A holiday, day 3"},
            {"Comment": "Created with GIMP"},
            {"AIGC": '{"Label":"2"}'},
        ],
    )
    def test_ordinary_texts_are_no_marks(self, texts: dict[str, str]) -> None:
        found = provenance(png_with(**texts))
        assert (found.marks, len(found.fields)) == ((), len(texts))

    @pytest.mark.parametrize("codec", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    def test_exif_is_found_in_every_container(self, codec: str) -> None:
        data = encoded(codec, exif=exif(Software="Adobe Firefly 3", Artist="Jo"))
        found = provenance(data)
        assert told(found) == [("generated", "Adobe Firefly")]
        assert ("Artist", "Jo") in [(field.key, field.value) for field in found.fields]

    def test_a_camera_is_a_claim_of_a_capture(self) -> None:
        found = provenance(encoded(exif=exif(Make="Canon", Model="Canon EOS R5")))
        assert told(found) == [("captured", None)]
        assert found.marks[0].why == "It names a camera: Canon EOS R5."

    @pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
    def test_a_user_comment_in_utf_16_is_read_in_either_byte_order(self, encoding: str) -> None:
        comment = b"UNICODE\0" + SETTINGS.encode(encoding)
        block = Image.Exif()
        block.get_ifd(0x8769)[0x9286] = comment
        assert told(provenance(encoded(exif=block.tobytes()))) == [("generated", "Stable Diffusion web UI")]

    def test_comfyui_in_the_exif_of_webp(self) -> None:
        data = encoded("WEBP", exif=exif(Make='workflow:{"nodes": []}', Model='prompt: {"3": {}}'))
        assert told(provenance(data)) == [("generated", "ComfyUI")]

    @pytest.mark.parametrize("form", ["attribute", "element", "resource"])
    def test_the_kind_of_source_in_xmp(self, form: str) -> None:
        packet = {
            "attribute": xmp("", f'Iptc4xmpExt:DigitalSourceType="{TRAINED}"'),
            "element": xmp(f"<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>"),
            "resource": xmp(f'<Iptc4xmpExt:DigitalSourceType rdf:resource="{TRAINED}"/>'),
        }[form]
        found = provenance(jpeg_with(encoded(), 0xE1, XMP_APP1 + packet))
        assert told(found) == [("generated", None)]
        assert found.marks[0].why == "It says: made by a trained model."

    @pytest.mark.parametrize("codec", ["WEBP", "AVIF", "TIFF", "PNG"])
    def test_xmp_is_found_in_every_container(self, codec: str) -> None:
        packet = xmp("<photoshop:Credit>Made with Google AI</photoshop:Credit>")
        if codec == "PNG":
            info = PngImagePlugin.PngInfo()
            info.add_itxt("XML:com.adobe.xmp", packet.decode())
            data = encoded("PNG", pnginfo=info)
        elif codec == "TIFF":
            data = encoded("TIFF", tiffinfo={700: packet})
        else:
            data = encoded(codec, xmp=packet)
        assert told(provenance(data)) == [("generated", "Google AI")]

    def test_iptc_and_comments_of_jpeg(self) -> None:
        record = b"\x1c\x02\x6e" + struct.pack(">H", 19) + b"Made with Google AI"
        resource = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
        data = jpeg_with(jpeg_with(encoded(), 0xED, resource), 0xFE, b"hello")
        found = provenance(data)
        assert [(field.kind, field.key, field.value) for field in found.fields] == [
            ("comment", "", "hello"),
            ("iptc", "Credit", "Made with Google AI"),
        ]
        assert told(found) == [("generated", "Google AI")]

    def test_every_kind_of_source_has_words(self) -> None:
        assert all(says and words for says, words in SOURCE_TYPES.values())


class TestHostile:
    def test_entities_are_never_expanded(self) -> None:
        bomb = b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 1000 + b'">]><r xmp:CreatorTool="&a;&a;"/>'
        assert xmp_fields(bomb) == (("xmp:CreatorTool", "&a;&a;"),)

    def test_a_compressed_bomb_ends_at_the_bound(self) -> None:
        packed = zlib.compress(bytes(32 * 2**20), 1)
        payload = b"Comment\0\0" + packed
        chunk = struct.pack(">I", len(payload)) + b"zTXt" + payload + b"\0\0\0\0"
        png = encoded("PNG")
        (block,) = metadata_blocks(png[:33] + chunk + png[33:])
        assert len(block.payload) == MAX_BLOCK_BYTES

    def test_a_flood_of_texts_and_a_long_value_are_cut(self) -> None:
        found = provenance(png_with(**{f"key{index}": f"value {index}" for index in range(500)}))
        assert len(found.fields) == MAX_FIELDS
        assert len(metadata_blocks(png_with(**{f"k{index}": "v" for index in range(500)}))) == MAX_BLOCKS
        (field,) = provenance(png_with(note="x" * 50_000)).fields
        assert (len(field.value), field.value[-1]) == (MAX_VALUE_CHARS, "…")

    def test_control_and_direction_marks_do_not_reach_a_screen(self) -> None:
        (field,) = provenance(png_with(note="a\x1b[31mb\u202egnp.exe")).fields
        assert field.value == "a[31mbgnp.exe"

    def test_an_exif_directory_that_points_at_itself_ends(self) -> None:
        entry = struct.pack(">HHII", 0x8769, 4, 1, 8)
        assert exif_fields(b"MM\0*" + struct.pack(">IH", 8, 1) + entry) == ()

    def test_every_prefix_and_many_broken_files_are_answered(self, signed: bytes) -> None:
        rng = random.Random(11)
        texts = png_with(parameters=SETTINGS)
        seeds = [texts, encoded("WEBP", exif=exif(Make="a", Model="b")), signed[:6000], signed]
        for _ in range(150):
            broken = bytearray(rng.choice(seeds))
            for _ in range(rng.choice((1, 4, 30))):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            assert provenance(bytes(broken[: rng.randrange(len(broken))])).to_json()
        for end in range(0, len(texts), 7):
            assert provenance(texts[:end]).c2pa.state == "absent"

    @pytest.mark.parametrize(
        "data", [b"", b"\xff", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"jumb" * 9, b"GIF89a"]
    )
    def test_what_is_no_picture_says_nothing(self, data: bytes) -> None:
        found = provenance(data)
        assert (found.marks, found.fields) == ((), ())
