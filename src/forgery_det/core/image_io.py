"""The one image decoder: bytes -> RGB uint8, and the facts of the file.

Everything that reads an image for training, evaluation, export or serving goes through here, so a picture has the same
pixels everywhere. The rules stand in `docs/decoding.md`, a row for each case.

A file passes four gates in order: its size in bytes; its first bytes, which name the codec; a walk over its container,
which proves that it is whole and that its claimed size keeps the limits; and only then the decoder. All refusals
are `ImageError`s with a stable `reason`. No state of the process is changed, so threads may decode side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from forgery_det.core import image_avif, image_gif, image_jpeg, image_png, image_tiff, image_webp
from forgery_det.core.errors import ImageError
from forgery_det.core.image_encode import encode_image
from forgery_det.core.image_exif import apply_orientation, swaps_sides
from forgery_det.core.image_facts import (
    DecodeLimits,
    ImageFacts,
    ParsedImage,
    RGBArray,
    corrupt,
    decoder_failures_as_image_errors,
)
from forgery_det.core.image_jpeg import estimate_jpeg_quality
from forgery_det.core.image_sniff import sniff_codec
from forgery_det.core.stored import byte_range, read_stored

__all__ = [
    "ACCEPTED_CODECS",
    "DecodeLimits",
    "DecodedImage",
    "ImageFacts",
    "decode_file",
    "decode_image",
    "encode_image",
    "estimate_jpeg_quality",
    "read_facts",
]

_PARSERS: dict[str, Callable[[bytes, DecodeLimits], ParsedImage]] = {
    "jpeg": image_jpeg.parse,
    "png": image_png.parse,
    "webp": image_webp.parse,
    "avif": image_avif.parse,
    "gif": image_gif.parse,
    "tiff": image_tiff.parse,
}
ACCEPTED_CODECS = tuple(_PARSERS)
_DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, slots=True, eq=False)  # comparing arrays with == gives no truth value
class DecodedImage:
    """A decoded image.

    Args:
        image_HWC: RGB, uint8, C-contiguous, shape (H, W, 3), upright, owned by the caller.
        facts: Facts of the file.
    """

    image_HWC: RGBArray
    facts: ImageFacts


def read_facts(data: bytes, limits: DecodeLimits = _DEFAULT_LIMITS) -> ImageFacts:
    """Read the facts of an image file without decoding its pixels.

    Args:
        data: The whole file.
        limits: Bounds on the file and on the size that its header claims.

    Returns:
        The same facts that `decode_image` returns.

    Raises:
        ImageError: The file is refused; see `docs/decoding.md` for the reasons.

    >>> import numpy as np
    >>> facts = read_facts(encode_image(np.zeros((6, 4, 3), np.uint8), "jpeg", 90))
    >>> facts.codec, facts.width_px, facts.height_px, facts.jpeg_quality, facts.chroma_subsampling
    ('jpeg', 4, 6, 90, '4:2:0')
    """
    return _upright(_parse(data, limits).stored)


def decode_image(data: bytes, limits: DecodeLimits = _DEFAULT_LIMITS) -> DecodedImage:
    """Decode an image file to RGB by the rules of `docs/decoding.md`.

    Args:
        data: The whole file.
        limits: Bounds on the file and on the size that its header claims.

    Returns:
        Pixels and facts. The same bytes give the same pixels in every call and thread.

    Raises:
        ImageError: The file is refused.

    >>> import numpy as np
    >>> white = np.full((2, 3, 3), 255, np.uint8)
    >>> decode_image(encode_image(white, "png", None)).image_HWC.shape
    (2, 3, 3)
    >>> decode_image(b"Dear reader, I am a letter.")
    Traceback (most recent call last):
    ...
    forgery_det.core.errors.ImageError: not_an_image: Expected an image (jpeg, png, webp, avif, gif, tiff), got ...
    """
    parsed = _parse(data, limits)
    stored = parsed.stored
    with decoder_failures_as_image_errors(stored.codec):
        image_HWC = parsed.rgb()
        if image_HWC.shape != (stored.height_px, stored.width_px, 3):
            raise corrupt(f"Expected {stored.height_px} x {stored.width_px} pixels, got {image_HWC.shape[:2]}.")
        return DecodedImage(apply_orientation(image_HWC, stored.orientation), _upright(stored))


def decode_file(path: Path, limits: DecodeLimits = _DEFAULT_LIMITS) -> DecodedImage:
    """Read and decode an image file; its size is checked before it is read.

    Args:
        path: The file, or its range of bytes in a shard (see `stored`). Name and extension do not matter.
        limits: Bounds on the file and on the size that its header claims.

    Returns:
        Pixels and facts.

    Raises:
        ImageError: The file is refused or cannot be read (`unreadable`); the text names the path.
    """
    try:
        place = byte_range(path)
        n_bytes = path.stat().st_size if place is None else place.n_bytes
        if n_bytes <= limits.max_bytes:
            return decode_image(read_stored(path), limits)
    except ImageError as error:
        raise ImageError(error.reason, f"{error.detail} ({path})") from error
    except OSError as error:
        raise ImageError("unreadable", f"Expected a readable image file, got {error.strerror} ({path})") from error
    raise ImageError("too_many_bytes", f"Expected at most {limits.max_bytes} bytes, got {n_bytes} ({path})")


def _parse(data: bytes, limits: DecodeLimits) -> ParsedImage:
    if not data:
        raise ImageError("empty", "Expected an image, got zero bytes.")
    if len(data) > limits.max_bytes:
        raise ImageError("too_many_bytes", f"Expected at most {limits.max_bytes} bytes, got {len(data)}.")
    codec = sniff_codec(data, ACCEPTED_CODECS)
    with decoder_failures_as_image_errors(codec):
        return _PARSERS[codec](data, limits)


def _upright(stored: ImageFacts) -> ImageFacts:
    if not swaps_sides(stored.orientation):
        return stored
    return replace(stored, width_px=stored.height_px, height_px=stored.width_px)
