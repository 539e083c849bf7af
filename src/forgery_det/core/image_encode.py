"""Encode RGB uint8 to bytes, with every setting that changes pixels fixed or named.

Recipes bring all images of a dataset to one codec with it, and perturbations recompress with it. Same array, codec and
quality give the same bytes for one version of Pillow. No metadata is written.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_facts import RGBArray, decoder_failures_as_image_errors

_QUALITIES = {"jpeg": (1, 100), "webp": (0, 100), "avif": (0, 100), "png": None}
# One thread for AVIF: the number of threads would otherwise depend on the machine, and with it the tiles.
_SETTINGS: dict[str, dict[str, Any]] = {
    "jpeg": {"subsampling": "4:2:0", "progressive": False, "optimize": False},
    "webp": {"method": 4, "lossless": False},
    "avif": {"subsampling": "4:2:0", "speed": 6, "max_threads": 1},
    "png": {"compress_level": 6},
}
_LOSSLESS_WEBP = {"method": 4, "lossless": True, "exact": True, "quality": 75}


def encode_image(image_HWC: RGBArray, codec: str, quality: int | None) -> bytes:
    r"""Encode an image.

    Args:
        image_HWC: RGB, uint8, shape (H, W, 3).
        codec: `jpeg` (baseline, 4:2:0), `webp`, `avif` (4:2:0) or `png`.
        quality: For `jpeg` in [1, 100], for `webp` and `avif` in [0, 100]. None for `png`. None for `webp` means
            lossless.

    Returns:
        The file as bytes.

    Raises:
        ConfigError: Unknown codec, or a quality that does not go with it.
        ImageError: `not_rgb_uint8` for another array; `cannot_encode` if the codec refuses the size.

    >>> encode_image(np.zeros((8, 8, 3), np.uint8), "png", None)[:4]
    b'\x89PNG'
    """
    settings = _settings(codec, quality)
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or not image_HWC.size:
        got = f"{image_HWC.dtype} of shape {image_HWC.shape}"
        raise ImageError("not_rgb_uint8", f"Expected RGB uint8 of shape (H, W, 3), got {got}.")
    target = BytesIO()
    try:
        with decoder_failures_as_image_errors(codec):
            Image.fromarray(np.ascontiguousarray(image_HWC)).save(target, codec, **settings)
    except ImageError as error:
        height, width = image_HWC.shape[:2]
        detail = f"Expected a size that {codec.upper()} can hold, got {width} x {height} px ({error.__cause__})."
        raise ImageError("cannot_encode", detail) from error
    return target.getvalue()


def _settings(codec: str, quality: int | None) -> dict[str, Any]:
    if codec not in _QUALITIES:
        raise ConfigError(f"Expected `codec` to be one of {', '.join(sorted(_QUALITIES))}, got {codec!r}.")
    bounds = _QUALITIES[codec]
    if quality is None and codec in ("png", "webp"):
        return _SETTINGS["png"] if codec == "png" else _LOSSLESS_WEBP
    if bounds is None:
        raise ConfigError(f"Expected `quality` to be None for png, got {quality}.")
    if quality is None or isinstance(quality, bool) or not bounds[0] <= quality <= bounds[1]:
        raise ConfigError(f"Expected `quality` in [{bounds[0]}, {bounds[1]}] for {codec}, got {quality}.")
    return {**_SETTINGS[codec], "quality": quality}
