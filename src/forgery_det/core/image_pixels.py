"""From a Pillow image to RGB uint8: strict loading, and the arithmetic of every conversion.

The rules, for a stored sample v, colour c, alpha a and key k (all 8-bit unless said):

- 16-bit grey: round(v / 257), so that 0 -> 0 and 65535 -> 255 with equal steps.
- alpha: (c·a + 255·(255 − a)) / 255 rounded to nearest, that is, laid over white in stored (gamma-encoded) values.
- CMYK: Pillow's formula, R = (255 − K) − (255 − K)·C / 255 with rounding to nearest, and so for G and B.

Work is done in bands of rows, so temporary arrays stay small beside the image itself.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from forgery_det.core.errors import ImageError
from forgery_det.core.image_facts import RGBArray

BandRule = Callable[[Image.Image], NDArray[np.uint8]]
WHITE = 255
_BAND_PIXELS = 4_000_000


class StrictImageFile(ImageFile.ImageFile):
    """Base that makes a Pillow reader refuse missing pixels, whatever the switches of this process say.

    Another library may set `ImageFile.LOAD_TRUNCATED_IMAGES`, with which Pillow invents the missing part of a picture.
    Setting it back would be a side effect on that library and a race between threads. So Pillow's own `load` is bound
    here to its own copy of the switch. A codec module puts this class behind the reader:
    `class _Reader(JpegImageFile, StrictImageFile)`. JPEG, PNG and GIF readers also need a `StrictBytes` as their file.
    """

    load: Any = types.FunctionType(
        ImageFile.ImageFile.load.__code__,
        {**vars(ImageFile), "LOAD_TRUNCATED_IMAGES": False},
        "load",
        ImageFile.ImageFile.load.__defaults__,
        ImageFile.ImageFile.load.__closure__,
    )


class StrictBytes(BytesIO):
    """A file in memory for which reading on at the end is an error, where a decoder might invent data instead."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like `BytesIO.read`, but raise `OSError` when data is asked for and none is left."""
        chunk = super().read(size)
        if not chunk and size != 0:
            raise OSError("image data is truncated: the decoder asked for more than the file holds")
        return chunk


def check_pillow_ceiling(width_px: int, height_px: int, factor: int) -> None:
    """Refuse what Pillow itself would refuse or warn about, before it can.

    Pillow's TIFF reader warns above `Image.MAX_IMAGE_PIXELS`, its WebP reader raises above twice that. A warning is
    process-wide and cannot be silenced for one thread, so the ceiling is checked first.

    Args:
        width_px: Width in the header.
        height_px: Height in the header.
        factor: How many times `Image.MAX_IMAGE_PIXELS` the reader bears.

    Raises:
        ImageError: `too_many_pixels`.
    """
    ceiling = Image.MAX_IMAGE_PIXELS
    if ceiling is not None and width_px * height_px > factor * ceiling:
        raise ImageError(
            "too_many_pixels",
            f"Expected at most {factor * ceiling} pixels ({factor} x PIL.Image.MAX_IMAGE_PIXELS), "
            f"got {width_px} x {height_px} px.",
        )


def may_crop(n_pixels: int) -> bool:
    """Tell whether Pillow's `crop` gives a region of this size without a warning about `Image.MAX_IMAGE_PIXELS`."""
    return Image.MAX_IMAGE_PIXELS is None or n_pixels <= Image.MAX_IMAGE_PIXELS


def band_by_band(image: Image.Image, rule: BandRule) -> RGBArray:
    """Decode an opened image, apply a conversion rule to bands of its rows, and gather the result.

    Args:
        image: An opened image of any mode.
        rule: Maps a band to its (h, W, 3) RGB array or (h, W, 1) grey array.

    Returns:
        A fresh C-contiguous array of shape (H, W, 3) that shares no memory with Pillow.

    >>> band_by_band(Image.new("L", (2, 1), 7), plain_rgb).tolist()
    [[[7, 7, 7], [7, 7, 7]]]
    """
    image.load()
    width, height = image.size
    image_HWC = np.empty((height, width, 3), np.uint8)
    step = max(1, _BAND_PIXELS // width)
    if step >= height or not may_crop(width * step):
        image_HWC[:] = rule(image)
        return image_HWC
    for top in range(0, height, step):
        bottom = min(top + step, height)
        image_HWC[top:bottom] = rule(image.crop((0, top, width, bottom)))
    return image_HWC


def plain_rgb(band: Image.Image) -> NDArray[np.uint8]:
    """Rule for modes that need no decision of ours: `1`, `L`, `RGB`, and `CMYK` by Pillow's formula."""
    if band.mode in ("1", "L"):
        return np.asarray(band.convert("L"))[..., None]
    return np.asarray(band.convert("RGB"))


def alpha_over_white(band: Image.Image) -> NDArray[np.uint8]:
    """Rule for modes with straight alpha, `LA` and `RGBA`."""
    samples = np.asarray(band)
    return composite_over_white(samples[..., :-1], samples[..., -1:])


def composite_over_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay colour over white: (c·a + 255·(255 − a)) / 255, rounded to nearest.

    Args:
        colour: Straight (not premultiplied) colour, shape (..., C).
        alpha: Opacity in [0, 255], shape (..., 1).

    Returns:
        Array of the broadcast shape.

    >>> composite_over_white(np.array([[0, 100, 200]], np.uint8), np.array([[128]], np.uint8)).tolist()
    [[127, 177, 227]]
    """
    wide = alpha.astype(np.uint16)
    # The largest value before the division is 255 * 255 + 127, which fits 16 bits. 255 is odd: there are no ties.
    return ((colour * wide + WHITE * (255 - wide) + 127) // 255).astype(np.uint8)


def grey_from_16_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16-bit grey to 8 bits as round(v / 257).

    >>> grey_from_16_bit(np.array([0, 128, 129, 32768, 65535], np.uint16)).tolist()
    [0, 0, 1, 128, 255]
    """
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def look_up(indices: NDArray[Any], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn palette indices into colours laid over white.

    Args:
        indices: Palette indices, any shape.
        palette: RGBA entries, shape (256, 4); entries that the file does not define are opaque black.

    Returns:
        RGB of shape (..., 3).
    """
    opaque: NDArray[np.uint8] = composite_over_white(palette[:, :3], palette[:, 3:])
    return opaque.take(indices, axis=0)


def rgba_palette(colours: bytes, alphas: bytes = b"") -> NDArray[np.uint8]:
    """Build a full palette from a file's colour table and optional opacities.

    >>> rgba_palette(bytes([9, 8, 7]), bytes([0]))[:2].tolist()
    [[9, 8, 7, 0], [0, 0, 0, 255]]
    """
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 3] = 255
    entries = np.frombuffer(colours[: 3 * 256], np.uint8).reshape(-1, 3)
    palette[: len(entries), :3] = entries
    opacities = np.frombuffer(alphas[:256], np.uint8)
    palette[: len(opacities), 3] = opacities
    return palette
