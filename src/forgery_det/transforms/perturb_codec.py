"""Perturbations that save the image once more: JPEG, WebP, AVIF.

Bytes come from the pinned encoder (`core.image_encode`: 4:2:0 chroma for all three) and pixels from our own decoder, so
a copy is what a user would upload. Quality numbers are those of each codec and do not compare: JPEG follows the IJG
scale, WebP and AVIF have scales of their own.
"""

from __future__ import annotations

import numpy as np

from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.preprocess import ImageArray

QUALITIES = (95, 90, 80, 70, 60, 50, 40, 30)
"""Of severities 1 to 8, for all three codecs."""


def resave(image_HWC: ImageArray, codec: str, quality: int) -> ImageArray:
    """Encode and decode once.

    Args:
        image_HWC: uint8 RGB.
        codec: `jpeg`, `webp` or `avif`.
        quality: On the codec's own scale.

    Raises:
        ConfigError: Unknown codec or quality.
        ImageError: The codec cannot hold an image of this size.

    Example:
        >>> resave(np.zeros((4, 6, 3), np.uint8), "jpeg", 90).shape
        (4, 6, 3)
    """
    return decode_image(encode_image(image_HWC, codec, quality)).image_HWC


def _saved_as(codec: str) -> Perturbation:
    def apply(image_HWC: ImageArray, rng: np.random.Generator, quality: int) -> ImageArray:  # noqa: ARG001
        return resave(image_HWC, codec, quality)

    summary = f"saved once more as {codec.upper() if codec != 'webp' else 'WebP'}, 4:2:0"
    return Perturbation(codec, "codec", summary, tuple({"quality": quality} for quality in QUALITIES), apply)


JPEG = _saved_as("jpeg")
WEBP = _saved_as("webp")
AVIF = _saved_as("avif")
