"""What is known about an image file, the limits it must keep, and how a decoder's failure becomes an `ImageError`.

Every codec module of `core` builds on these four things. A codec module offers one function, `parse(data, limits)`. It
walks the container, checks the size and returns a `ParsedImage`; only `ParsedImage.rgb` spends memory on pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from forgery_det.core.errors import ImageError

RGBArray = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds that a file must keep; all are checked before memory is spent on pixels.

    Args:
        max_bytes: Largest file, in bytes.
        max_pixels: Largest width × height.
        max_side_px: Largest width or height.
        min_side_px: Smallest width or height.
    """

    max_bytes: int = 100 * 2**20
    max_pixels: int = 100_000_000
    max_side_px: int = 30_000
    min_side_px: int = 1

    def check_size(self, width_px: int, height_px: int) -> None:
        """Refuse a size that breaks a limit.

        Args:
            width_px: Width that the header claims.
            height_px: Height that the header claims.

        Raises:
            ImageError: `zero_size`, `side_too_long`, `too_many_pixels` or `too_small`.

        >>> DecodeLimits(max_side_px=4000).check_size(6000, 10)
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ImageError: side_too_long: Expected sides of at most 4000 px, got 6000 x 10 px.
        """
        got = f"got {width_px} x {height_px} px."
        if width_px <= 0 or height_px <= 0:
            raise ImageError("zero_size", f"Expected sides of at least 1 px, {got}")
        if max(width_px, height_px) > self.max_side_px:
            raise ImageError("side_too_long", f"Expected sides of at most {self.max_side_px} px, {got}")
        if width_px * height_px > self.max_pixels:
            raise ImageError("too_many_pixels", f"Expected at most {self.max_pixels} pixels, {got}")
        if min(width_px, height_px) < self.min_side_px:
            raise ImageError("too_small", f"Expected sides of at least {self.min_side_px} px, {got}")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """File facts, read without decoding pixels; the same whether or not the image is decoded afterwards.

    Args:
        codec: `jpeg`, `png`, `webp`, `avif`, `gif` or `tiff`.
        width_px: Width after orientation.
        height_px: Height after orientation.
        n_bytes: Size of the file.
        mode: What the file stores, in Pillow's words: `1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK`, `I;16`.
        bit_depth: Bits of one stored sample (of one palette index for `P`).
        n_frames: Frames or pages in the file. Only the first is decoded.
        jpeg_quality: Estimate in [1, 100] on the IJG scale, None if not JPEG.
        chroma_subsampling: `4:4:4`, `4:2:2`, `4:2:0` and so on, `4:0:0` for grey, None if not JPEG.
        progressive: A progressive JPEG or an interlaced PNG or GIF.
        orientation: EXIF orientation 1 to 8; 1 when absent or invalid.
        has_icc: The file embeds an ICC profile.
        has_alpha: The file stores transparency of any kind.
        has_exif: The file embeds EXIF.
        notes: Stable words for each rule that was applied; listed in `docs/decoding.md`.
    """

    codec: str
    width_px: int
    height_px: int
    n_bytes: int
    mode: str
    bit_depth: int
    n_frames: int = 1
    jpeg_quality: int | None = None
    chroma_subsampling: str | None = None
    progressive: bool = False
    orientation: int = 1
    has_icc: bool = False
    has_alpha: bool = False
    has_exif: bool = False
    notes: tuple[str, ...] = ()


class ParsedImage(Protocol):
    """A container that was walked to its end and found whole, with its pixels still undecoded."""

    @property
    def stored(self) -> ImageFacts:
        """Facts with width and height as stored, before orientation."""

    def rgb(self) -> RGBArray:
        """Decode the first frame to a fresh (H, W, 3) RGB array, before orientation."""


def common_notes(facts: ImageFacts) -> tuple[str, ...]:
    """Notes that follow from the facts alone, in a fixed order.

    >>> common_notes(ImageFacts("gif", 4, 4, 99, "P", 8, n_frames=3, has_alpha=True))
    ('first_frame_of_3', 'alpha_composited')
    """
    applied = {
        f"first_frame_of_{facts.n_frames}": facts.n_frames > 1,
        "alpha_composited": facts.has_alpha,
        "icc_ignored": facts.has_icc,
        f"converted_{facts.bit_depth}_bit": facts.bit_depth > 8,
        "cmyk_converted": facts.mode == "CMYK",
        f"orientation_{facts.orientation}_applied": facts.orientation != 1,
    }
    return tuple(note for note, holds in applied.items() if holds)


def truncated(detail: str) -> ImageError:
    """Build the refusal of a file that ends too early."""
    return ImageError("truncated", detail)


def corrupt(detail: str) -> ImageError:
    """Build the refusal of a file whose structure contradicts its format."""
    return ImageError("corrupt", detail)


def unsupported(detail: str) -> ImageError:
    """Build the refusal of a rare variant of an accepted format, for which no rule is stated."""
    return ImageError("unsupported_variant", detail)


@contextmanager
def decoder_failures_as_image_errors(codec: str) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes into an `ImageError`; `KeyboardInterrupt` passes.

    Pillow's decoders raise `OSError`, `SyntaxError`, `ValueError`, `struct.error`, `KeyError`, `IndexError`,
    `EOFError`, `OverflowError`, `ZeroDivisionError`, `RuntimeError`, warnings turned into errors, and more. Which one
    depends on the byte that is broken, so the list cannot be closed.

    >>> with decoder_failures_as_image_errors("png"):
    ...     raise KeyError("IHDR")
    Traceback (most recent call last):
    ...
    forgery_det.core.errors.ImageError: corrupt: Expected a decodable PNG, got KeyError: 'IHDR'
    """
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            "out_of_memory", f"Expected memory enough to decode this {codec.upper()}, got none."
        ) from error
    except Exception as error:
        reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
        detail = f"Expected a decodable {codec.upper()}, got {type(error).__name__}: {error}"
        raise ImageError(reason, detail) from error
