"""The decoder as a whole: gates in order, refusals before memory is spent, threads, no side effects."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from forgery_det.core.errors import ForgeryDetError, ImageError
from forgery_det.core.image_facts import decoder_failures_as_image_errors
from forgery_det.core.image_io import (
    ACCEPTED_CODECS,
    DecodedImage,
    DecodeLimits,
    ImageFacts,
    decode_file,
    decode_image,
    encode_image,
    read_facts,
)

PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((40, 30))
)
DEFAULT_LIMITS = DecodeLimits()
CODECS = [codec for codec in ACCEPTED_CODECS if codec != "avif" or features.check("avif")]


def saved(codec: str, pixels: np.ndarray = PIXELS) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, codec.upper())
    return target.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(saved("jpeg"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def reason_of(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> str:
    with pytest.raises(ImageError) as refusal:
        decode_image(data, limits)
    assert isinstance(refusal.value, ForgeryDetError)
    assert refusal.value.detail.startswith("Expected ")
    return refusal.value.reason


@pytest.mark.parametrize("codec", CODECS)
def test_decode_contract_of_every_codec(codec: str) -> None:
    data = saved(codec)
    decoded = decode_image(data)
    image = decoded.image_HWC
    assert (image.shape, image.dtype) == ((30, 40, 3), np.uint8)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert image.flags.owndata
    assert decoded.facts == read_facts(data)
    assert (decoded.facts.codec, decoded.facts.n_bytes) == (codec, len(data))
    assert (decoded.facts.jpeg_quality is None) == (codec != "jpeg")
    assert (decoded.facts.chroma_subsampling is None) == (codec != "jpeg")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("options", [{}, {"lossless": True}])
def test_the_smallest_image_decodes(codec: str, options: dict[str, bool]) -> None:
    target = io.BytesIO()
    Image.new("RGB", (1, 1), (200, 200, 200)).save(target, codec.upper(), **(options if codec == "webp" else {}))
    assert np.abs(decode_image(target.getvalue()).image_HWC.astype(int) - 200).max() <= 4


@pytest.mark.parametrize("codec", CODECS)
def test_decode_gives_the_same_pixels_in_every_thread(codec: str) -> None:
    data = saved(codec)
    expected = decode_image(data).image_HWC
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(decode_image, [data] * 12):
            np.testing.assert_array_equal(decoded.image_HWC, expected)
    assert threading.active_count() == before


def test_decoded_arrays_do_not_share_memory() -> None:
    first, second = decode_image(saved("png")).image_HWC, decode_image(saved("png")).image_HWC
    first[:] = 0
    np.testing.assert_array_equal(second, PIXELS)


def test_values_are_frozen_and_documented_fields_exist() -> None:
    names = [field.name for field in dataclasses.fields(ImageFacts)]
    assert names == [
        *("codec", "width_px", "height_px", "n_bytes", "mode", "bit_depth", "n_frames", "jpeg_quality"),
        *("chroma_subsampling", "progressive", "orientation", "has_icc", "has_alpha", "has_exif", "notes"),
    ]
    assert [field.name for field in dataclasses.fields(DecodedImage)] == ["image_HWC", "facts"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        DecodeLimits().max_bytes = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0", "not_an_image"),
        (b"Dear reader, this text was renamed to .jpg", "not_an_image"),
        (b"<html><body>404</body></html>", "not_an_image"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not_an_image"),
        (b"\xff\xd8", "truncated"),
        (b"\x89PNG", "truncated"),
        (b"GIF8", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (b"BM" + bytes(60), "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        (b"\xff\x0a" + bytes(60), "unsupported_format"),
        (b"8BPS\0\1" + bytes(60), "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format"),
        (b"%PDF-1.7\n", "unsupported_format"),
    ],
)
def test_first_bytes_decide(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def test_unsupported_format_lists_what_is_accepted() -> None:
    text = (
        r"^unsupported_format: Expected one of jpeg, png, webp, avif, gif, tiff, got a b'heic' file \(HEIC, video or "
        r"another ISO container\)\. Convert it without loss to PNG\.$"
    )
    with pytest.raises(ImageError, match=text):
        read_facts(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        (png_claiming(100_000, 100_000), DecodeLimits(), "side_too_long"),
        (png_claiming(100_000, 1), DecodeLimits(), "side_too_long"),
        (png_claiming(20_000, 20_000), DecodeLimits(), "too_many_pixels"),
        (png_claiming(2**31 - 1, 2**31 - 1), DecodeLimits(max_side_px=2**40), "too_many_pixels"),
        (png_claiming(0, 5), DecodeLimits(), "zero_size"),
        (jpeg_claiming(65_535, 65_535), DecodeLimits(), "side_too_long"),
        (jpeg_claiming(29_000, 29_000), DecodeLimits(), "too_many_pixels"),
        (saved("png"), DecodeLimits(max_bytes=50), "too_many_bytes"),
        (saved("png"), DecodeLimits(min_side_px=31), "too_small"),
        (saved("png"), DecodeLimits(max_pixels=1199), "too_many_pixels"),
    ],
)
def test_limits_are_enforced_on_headers(data: bytes, limits: DecodeLimits, reason: str) -> None:
    assert reason_of(data, limits) == reason
    with pytest.raises(ImageError) as refusal:
        read_facts(data, limits)
    assert refusal.value.reason == reason


def test_limits_admit_what_just_fits() -> None:
    limits = DecodeLimits(max_bytes=len(saved("png")), max_pixels=1200, max_side_px=40, min_side_px=30)
    assert decode_image(saved("png"), limits).facts.width_px == 40


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(png_claiming(20_000, 20_000), id="png"), pytest.param(jpeg_claiming(29_000, 29_000), id="jpeg")),
        pytest.param(b"GIF89a" + struct.pack("<HHBBB", 29_000, 29_000, 0, 0, 0), id="gif"),
        pytest.param(b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x1f\x4e\0" * 2, id="webp"),
    ],
)
def test_bombs_are_refused_before_memory_is_spent_and_before_pillow_is_asked(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("Pillow was asked to open the file")

    monkeypatch.setattr(ImageFile.ImageFile, "__init__", fail)
    tracemalloc.start()
    try:
        assert reason_of(data) == "too_many_pixels"
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_peak_memory_of_refusals_in_a_fresh_process(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_claiming(100_000, 100_000))
    code = (
        "import resource, sys, pathlib\n"
        "from forgery_det.core.errors import ImageError\n"
        "from forgery_det.core.image_io import decode_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    decode_file(pathlib.Path(sys.argv[1]))\n"
        "except ImageError as error:\n    print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(bomb)], capture_output=True, text=True, check=True)
    reason, growth_kib, has_torch = done.stdout.split()
    assert reason == "side_too_long"
    assert int(growth_kib) < 20_000
    assert has_torch == "False"


def test_file_errors_name_the_path(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(saved("jpeg")[:-30])
    with pytest.raises(ImageError, match=re.escape(f"({broken})")) as refusal:
        decode_file(broken)
    assert refusal.value.reason == "truncated"
    missing = tmp_path / "missing.png"
    text = f"unreadable: Expected a readable image file, got No such file or directory ({missing})"
    with pytest.raises(ImageError, match=f"^{re.escape(text)}$"):
        decode_file(missing)
    with pytest.raises(ImageError, match=r"^unreadable: "):
        decode_file(tmp_path)


def test_file_size_is_checked_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as stream:
        stream.truncate(2**40)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the file was read"))
    with pytest.raises(ImageError, match=r"^too_many_bytes: Expected at most 104857600 bytes, got 1099511627776 \("):
        decode_file(large)


def test_file_extension_does_not_matter(tmp_path: Path) -> None:
    misnamed = tmp_path / "photo.jpg"
    misnamed.write_bytes(saved("png"))
    assert decode_file(misnamed).facts.codec == "png"


@pytest.mark.parametrize(
    "error",
    [
        *(OSError("x"), SyntaxError("x"), ValueError("x"), struct.error("x"), EOFError(), KeyError("x"), IndexError()),
        *(OverflowError(), ZeroDivisionError(), NotImplementedError(), RuntimeError(), AssertionError(), TypeError()),
        *(RecursionError(), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), zlib.error("x"), AttributeError("x")),
        *(Image.DecompressionBombError("x"), Image.DecompressionBombWarning("x"), UserWarning("x")),
    ],
)
def test_any_exception_of_a_decoder_becomes_an_image_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "convert", fail)
    assert reason_of(saved("png")) == "corrupt"


def test_memory_error_has_its_own_reason_and_interrupts_pass() -> None:
    with pytest.raises(ImageError, match=r"^out_of_memory: "), decoder_failures_as_image_errors("png"):
        raise MemoryError
    with pytest.raises(KeyboardInterrupt), decoder_failures_as_image_errors("png"):
        raise KeyboardInterrupt


def broken_files() -> dict[str, bytes]:
    """Give files that are whole as containers but lack pixels, which Pillow fills up when its switch is on."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg, gif = saved("jpeg", noise), saved("gif", noise)
    scan = jpeg.index(b"\xff\xda")
    blocks = gif.index(b"\x2c\0\0\0\0\x40\0\x40\0") + 11
    return {
        "jpeg": jpeg[: (scan + len(jpeg)) // 2] + b"\xff\xd9",
        "png": png_claiming(64, 64),
        "gif": gif[: blocks + 1 + gif[blocks]] + b"\0;",
        "jpeg_bad_huffman_table": jpeg[:2] + b"\xff\xc4\0\x14\0" + b"\xff" * 16 + b"\0" + jpeg[2:],
    }


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "jpeg_bad_huffman_table"])
@pytest.mark.parametrize("is_switched_on", [False, True])
def test_missing_pixels_are_never_invented_even_if_a_library_asks_pillow_to(
    name: str, is_switched_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_switched_on)
    assert reason_of(broken_files()[name]) in ("truncated", "corrupt")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is is_switched_on


def test_missing_pixels_are_never_invented_if_the_switch_was_on_before_import(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(broken_files()["jpeg_bad_huffman_table"])
    code = (
        "import pathlib, sys\n"
        "from PIL import ImageFile\n"
        "ImageFile.LOAD_TRUNCATED_IMAGES = True\n"
        "from forgery_det.core.image_io import decode_file\n"
        "decode_file(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(broken)], capture_output=True, text=True, check=False)
    assert "ImageError: corrupt: " in done.stderr


@pytest.mark.parametrize("codec", CODECS)
def test_whole_files_decode_the_same_with_pillows_switch_on(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode_image(saved(codec)).image_HWC
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    np.testing.assert_array_equal(decode_image(saved(codec)).image_HWC, expected)


@pytest.mark.parametrize("codec", ["jpeg", "png", "gif", *(["avif"] if "avif" in CODECS else [])])
def test_pillows_pixel_ceiling_does_not_change_what_is_decoded(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(saved(codec)).image_HWC.shape == (30, 40, 3)


def test_decoding_leaves_pillow_and_warnings_as_they_were() -> None:
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters), warnings.showwarning)
    for codec in CODECS:
        decode_image(saved(codec))
    after = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters), warnings.showwarning)
    assert after == before


@pytest.mark.parametrize("ceiling", [None, 10, Image.MAX_IMAGE_PIXELS])
def test_images_larger_than_one_band_are_whole(ceiling: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", ceiling)
    tall = np.zeros((4_100, 1_000, 3), np.uint8)
    tall[:, :, 0] = (np.arange(4_100) % 256)[:, None]
    np.testing.assert_array_equal(decode_image(encode_image(tall, "png", None)).image_HWC, tall)


def test_docs_list_every_reason_and_note() -> None:
    root = Path(__file__).parents[3]
    text = (root / "docs" / "decoding.md").read_text()
    code = "".join(path.read_text() for path in (root / "src/forgery_det/core").glob("image_*.py"))
    reasons = set(re.findall(r'ImageError\(\s*"(\w+)"', code)) | {"unsupported_variant", "corrupt", "truncated"}
    assert len(reasons) >= 14
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()
    for note in ("first_frame_of_N", "alpha_composited", "icc_ignored", "converted_N_bit", "cmyk_converted",
                 "orientation_N_applied", "nonstandard_jpeg_tables", "mpo_first_image", "trailing_bytes_ignored",
                 "webp_lossless"):  # fmt: skip
        assert f"`{note}`" in text
