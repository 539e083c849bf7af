"""Name a file's format by its first bytes; names and extensions are not trusted."""

from __future__ import annotations

from collections.abc import Sequence

from forgery_det.core.errors import ImageError
from forgery_det.core.image_facts import truncated

_STARTS = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}
_AVIF_BRANDS = (b"avif", b"avis")
# Formats that people meet and that are refused by name, so that the text can say what to do.
_REFUSED = {
    b"BM": "BMP",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"qoif": "QOI",
    b"<svg": "SVG",
    b"\x76\x2f\x31\x01": "OpenEXR",
}


def sniff_codec(data: bytes, accepted: Sequence[str]) -> str:
    """Tell the codec of a file.

    Args:
        data: The file, or at least its first 64 bytes.
        accepted: Codecs to name in the refusal.

    Returns:
        `jpeg`, `png`, `webp`, `avif`, `gif` or `tiff`.

    Raises:
        ImageError: `unsupported_format` for a known format without a rule, `truncated` for a file that ends inside its
            signature, else `not_an_image`.

    >>> sniff_codec(b"GIF89a...", ("gif",))
    'gif'
    >>> sniff_codec(b"BM......", ("gif", "png"))
    Traceback (most recent call last):
    ...
    forgery_det.core.errors.ImageError: unsupported_format: Expected one of gif, png, got BMP. Convert it ...
    """
    for start, codec in _STARTS.items():
        if data.startswith(start):
            return codec
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    names = ", ".join(accepted)
    if data[4:8] == b"ftyp" and len(data) >= 12:
        size = min(int.from_bytes(data[:4]), len(data), 256)
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4))]
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "avif"
        refused = f"a {data[8:12]!r} file (HEIC, video or another ISO container)"
    else:
        refused = next((name for start, name in _REFUSED.items() if data.startswith(start)), "")
    if refused:
        raise ImageError(
            "unsupported_format", f"Expected one of {names}, got {refused}. Convert it without loss to PNG."
        )
    starts_like_a_container = data[:4] == b"RIFF" or data[4:8] == b"ftyp"
    if len(data) < 12 and (starts_like_a_container or any(start.startswith(data) for start in (*_STARTS, b"RIFF"))):
        raise truncated(f"Expected a signature of up to 12 bytes, got {len(data)} bytes.")
    raise ImageError("not_an_image", f"Expected an image ({names}), got bytes that start with {data[:8]!r}.")
