"""Keeping the pixel grid of an original through a model, and giving the result the file history of the original.

A model takes sides that are multiples of 8 or 16. Resizing would interpolate every pixel of one class and none of the
other, which detectors learn (AlignedForensics, arXiv 2410.11835); so images are padded by reflection and cut back.

A JPEG leaves blocks and quantisation steps. A reconstruction of a JPEG is therefore written as JPEG again, with the
same quantisation tables, the same chroma subsampling and the same orientation as stored, so that blocks lie on the same
grid (the format alignment of DDA, arXiv 2505.14359). Lossless originals (PNG, lossless TIFF, GIF) become PNG. What
cannot be matched, lossy WebP and AVIF, is refused where alignment is asked for: a lossless fake of a lossy photograph
would be a shortcut. What an image went through before it was saved last cannot be known and is not copied.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from forgery_det.core.errors import ImageError
from forgery_det.core.image_exif import apply_orientation
from forgery_det.core.image_io import DecodedImage, ImageFacts, encode_image

ImageArray = npt.NDArray[np.uint8]

UNMATCHED = "history_unmatched"
"""Reason of the refusal of an original whose codec cannot be written alike."""

_SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
_INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
_ORIENTATION_TAG = 0x0112


def pad_to_multiple(image_HWC: ImageArray, multiple: int) -> ImageArray:
    """Return the image with reflected rows below and columns to the right, up to multiples of `multiple`.

    Args:
        image_HWC: Shape (H, W, C).
        multiple: What a model's sides must divide by.

    Example:
        >>> pad_to_multiple(np.zeros((30, 41, 3), np.uint8), 8).shape
        (32, 48, 3)
    """
    rows, columns = -image_HWC.shape[0] % multiple, -image_HWC.shape[1] % multiple
    # Symmetric and not reflect: it also works where an image is smaller than what is added.
    return np.pad(image_HWC, ((0, rows), (0, columns), (0, 0)), mode="symmetric")


def check_history(decoded: DecodedImage, original: bytes) -> None:
    """Check that an image can be written like its original, before any work goes into it.

    Raises:
        ImageError: `history_unmatched`.
    """
    encode_like(np.ascontiguousarray(decoded.image_HWC[:8, :8]), original, decoded.facts)


def encode_like(image_HWC: ImageArray, original: bytes, facts: ImageFacts) -> tuple[bytes, str]:
    """Return the image as a file with the history of its original, and a word for what was matched.

    Args:
        image_HWC: RGB, uint8, upright, of the original's size.
        original: The original's bytes.
        facts: Facts of the original.

    Raises:
        ImageError: `history_unmatched`: the original's codec cannot be written alike.

    Example:
        >>> from forgery_det.core.image_io import read_facts
        >>> photo = np.full((16, 16, 3), 90, np.uint8)
        >>> data = encode_image(photo, "jpeg", 83)
        >>> alike, history = encode_like(photo, data, read_facts(data))
        >>> read_facts(alike).jpeg_quality, history
        (83, 'jpeg_tables')
    """
    if facts.codec == "jpeg":
        return _jpeg_like(image_HWC, original, facts), "jpeg_tables"
    if facts.codec in ("png", "gif") or _is_lossless_webp(original):
        return encode_image(image_HWC, "png", None), "lossless"
    if facts.codec == "tiff":
        with Image.open(BytesIO(original)) as image:
            if image.info.get("compression") != "jpeg":
                return encode_image(image_HWC, "png", None), "lossless"
    raise ImageError(UNMATCHED, f"Expected an original in JPEG or a lossless codec, got {facts.codec}.")


def _is_lossless_webp(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and b"VP8L" in data[12:64]


def _jpeg_like(image_HWC: ImageArray, original: bytes, facts: ImageFacts) -> bytes:
    with Image.open(BytesIO(original)) as source:
        assert isinstance(source, JpegImagePlugin.JpegImageFile)
        tables = {name: list(table) for name, table in source.quantization.items()}
    if facts.mode == "CMYK":
        raise ImageError(UNMATCHED, "Expected a JPEG in grey or RGB, got CMYK.")
    if facts.chroma_subsampling not in (*_SUBSAMPLINGS, "4:0:0"):
        raise ImageError(UNMATCHED, f"Expected chroma 4:4:4, 4:2:2 or 4:2:0, got {facts.chroma_subsampling}.")
    image = Image.fromarray(apply_orientation(image_HWC, _INVERSE[facts.orientation]))
    settings = {"qtables": tables, "progressive": facts.progressive, "optimize": False}
    if facts.chroma_subsampling == "4:0:0":
        image = image.convert("L")
    else:
        settings["subsampling"] = _SUBSAMPLINGS[facts.chroma_subsampling]
    if facts.orientation != 1:
        exif = Image.Exif()
        exif[_ORIENTATION_TAG] = facts.orientation
        settings["exif"] = exif
    target = BytesIO()
    try:
        image.save(target, "jpeg", **settings)
    except (ValueError, OSError) as error:
        raise ImageError(UNMATCHED, f"Expected tables that can be written again, got: {error}.") from error
    return target.getvalue()
