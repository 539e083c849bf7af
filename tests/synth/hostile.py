"""Two hundred images that a service must survive, truncated, lying, huge or odd, each with what must come of it."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from synth.images import smooth_image

SCORED, REFUSED, EITHER = "scored", "refused", "either"
CODECS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF")
COUNT = 200


@dataclass(frozen=True)
class Hostile:
    """A file, and whether it must be scored, must be refused, or may be either (bytes damaged at random)."""

    name: str
    data: bytes
    fate: str


def saved(image: Image.Image, codec: str, **options: object) -> bytes:
    """Encode with Pillow."""
    target = io.BytesIO()
    image.save(target, codec, **options)
    return target.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A small PNG that claims a size."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", data or zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + png_chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG that claims a size."""
    data = bytearray(saved(Image.fromarray(smooth_image(1)), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def hostile_images(*, large: bool = True) -> list[Hostile]:
    """All two hundred; equal in every run. Without `large`, none takes long to make or to decode."""
    rgb = Image.fromarray(smooth_image(7, 96, 80))
    whole = {codec: saved(rgb, codec) for codec in CODECS}
    found = [*_headers(large), *_wrong_types(), *_odd_but_honest(rgb)]
    for codec, data in whole.items():
        for part in (0.02, 0.2, 0.5, 0.8, 0.98):
            found.append(Hostile(f"cut_{part}.{codec.lower()}", data[: max(4, int(part * len(data)))], REFUSED))
    rng = np.random.default_rng(17)
    while len(found) < COUNT:
        codec = CODECS[len(found) % len(CODECS)]
        damaged = bytearray(whole[codec])
        for at in rng.integers(0, len(damaged), rng.integers(1, 12)):
            damaged[at] = int(rng.integers(0, 256))
        found.append(Hostile(f"damaged_{len(found)}.{codec.lower()}", bytes(damaged), EITHER))
    assert len(found) == COUNT
    return found


def _headers(large: bool) -> list[Hostile]:
    text_bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(20_000_000 if large else 2_000_000), 1))
    pixels = zlib.compress(bytes(16 * (1 + 3 * 12)))
    refused = {
        "header_100000x100000.png": png_claiming(100_000, 100_000),
        "header_wide.png": png_claiming(100_000, 1),
        "header_tall.png": png_claiming(1, 2**31 - 1),
        "header_400mp.png": png_claiming(20_000, 20_000),
        "header_zero.png": png_claiming(0, 5),
        "header_65535.jpg": jpeg_claiming(65_535, 65_535),
        "header_29000.jpg": jpeg_claiming(29_000, 29_000),
        "header_29000.gif": b"GIF89a" + struct.pack("<HHBBB", 29_000, 29_000, 0, 0, 0),
        "header_20000.webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x1f\x4e\0" * 2,
        "short_rows.png": png_claiming(6_000, 6_000),
        "no_pixels.png": png_claiming(64, 64, zlib.compress(b"")),
    }
    scored = {"text_bomb.png": png_claiming(12, 16, pixels, text_bomb)}
    if large:
        flat = zlib.compress(bytes(4_000 * (1 + 3 * 4_000)), 1)
        scored["flat_16mp.png"] = png_claiming(4_000, 4_000, flat)
    files = [Hostile(name, data, REFUSED) for name, data in refused.items()]
    return [*files, *(Hostile(name, data, SCORED) for name, data in scored.items())]


def _wrong_types() -> list[Hostile]:
    files = {
        "empty.jpg": b"",
        "null.jpg": b"\0",
        "text.jpg": b"Dear reader, this text was renamed to .jpg",
        "page.png": b"<html><body>404</body></html>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "paper.pdf": b"%PDF-1.7\n" + bytes(99),
        "script.ps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "sound.webp": b"RIFF\x10\0\0\0WAVEfmt ",
        "picture.bmp": b"BM" + bytes(60),
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "layers.psd": b"8BPS\0\1" + bytes(60),
        "archive.jpg": b"PK\x03\x04" + bytes(60),
        "program.png": b"\x7fELF" + bytes(60),
        "pickle.jpg": b"\x80\x04\x95" + bytes(60),
        "only_magic.jpg": b"\xff\xd8\xff",
        "only_magic.png": b"\x89PNG\r\n\x1a\n",
        "only_magic.gif": b"GIF89a",
        "only_magic.tiff": b"II*\0\xff\xff\xff\xff",
        "loop.tiff": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "zeros.avif": b"\0\0\0\x1cftypavif" + bytes(200),
    }
    return [Hostile(name, data, REFUSED) for name, data in files.items()]


def _odd_but_honest(rgb: Image.Image) -> list[Hostile]:
    turned = rgb.rotate(180)
    alpha = rgb.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 60_000
    frames = {"save_all": True, "append_images": [turned] * 20}
    files = {
        "animated.gif": saved(rgb, "GIF", **frames),
        "animated.webp": saved(rgb, "WEBP", **frames),
        "animated.png": saved(rgb, "PNG", **frames),
        "pages.tiff": saved(rgb, "TIFF", **frames),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "cmyk.tiff": saved(rgb.convert("CMYK"), "TIFF"),
        "16_bit.png": saved(deep, "PNG"),
        "16_bit.tiff": saved(deep, "TIFF", compression="tiff_deflate"),
        "alpha.png": saved(alpha, "PNG"),
        "alpha.webp": saved(alpha, "WEBP"),
        "alpha.tiff": saved(alpha, "TIFF"),
        "grey.jpg": saved(rgb.convert("L"), "JPEG"),
        "one_bit.png": saved(rgb.convert("1"), "PNG"),
        "palette.png": saved(rgb.convert("P"), "PNG", transparency=3),
        "progressive.jpg": saved(rgb, "JPEG", progressive=True),
        "large_exif.jpg": saved(rgb, "JPEG", exif=exif),
        "one_pixel.png": saved(Image.new("RGB", (1, 1)), "PNG"),
        "strip_wide.png": saved(Image.new("RGB", (8_000, 1)), "PNG"),
        "strip_tall.jpg": saved(Image.new("RGB", (1, 8_000)), "JPEG"),
        "trailing.jpg": saved(rgb, "JPEG") + bytes(100_000),
        "named.jpg": saved(rgb, "PNG"),
    }
    return [Hostile(name, data, SCORED) for name, data in files.items()]
