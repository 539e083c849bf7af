"""Perturbations that resample the image and leave it at the new size.

Pillow's arithmetic (`transforms.preprocess.resize`): antialiased when it shrinks, except `nearest`, which picks pixels
and aliases. A side becomes round(side * factor), at least 1 px. Shrinking and enlarging are two perturbations, so that
a higher severity is always further from the original size.
"""

from __future__ import annotations

import numpy as np

from forgery_det.transforms.perturb import Perturbation, check_pixels
from forgery_det.transforms.preprocess import ImageArray, Kernel, resize

DOWN_FACTORS = (0.9, 0.75, 0.5, 0.35, 0.25)
UP_FACTORS = (1.1, 1.25, 1.5, 2.0)


def scale(image_HWC: ImageArray, factor: float, kernel: Kernel) -> ImageArray:
    """Resize both sides by a factor.

    Args:
        image_HWC: uint8 RGB.
        factor: Above 0; sides are rounded, and at least 1 px.
        kernel: As in `resize`.

    Raises:
        ImageError: The result would have more than `MAX_PIXELS` pixels.

    Example:
        >>> scale(np.zeros((1, 10, 3), np.uint8), 0.25, "lanczos").shape
        (1, 2, 3)
    """
    height, width = (max(1, round(side * factor)) for side in image_HWC.shape[:2])
    check_pixels(width, height)
    return resize(image_HWC, width, height, kernel)


def limit_long_side(image_HWC: ImageArray, limit_px: int, kernel: Kernel) -> ImageArray:
    """Shrink so that the longer side is at most `limit_px`; a smaller image stays as it is.

    Example:
        >>> limit_long_side(np.zeros((100, 400, 3), np.uint8), 200, "bicubic").shape
        (50, 200, 3)
    """
    longest = max(image_HWC.shape[:2])
    return image_HWC if longest <= limit_px else scale(image_HWC, limit_px / longest, kernel)


def _scaled(direction: str, kernel: Kernel, factors: tuple[float, ...]) -> Perturbation:
    def apply(image_HWC: ImageArray, rng: np.random.Generator, factor: float) -> ImageArray:  # noqa: ARG001
        return scale(image_HWC, factor, kernel)

    summary = f"{'shrunk' if direction == 'downscale' else 'enlarged'} by a factor with the {kernel} kernel"
    return Perturbation(f"{direction}_{kernel}", "resize", summary, tuple({"factor": f} for f in factors), apply)


DOWNSCALE_NEAREST = _scaled("downscale", "nearest", DOWN_FACTORS)
DOWNSCALE_BILINEAR = _scaled("downscale", "bilinear", DOWN_FACTORS)
DOWNSCALE_BICUBIC = _scaled("downscale", "bicubic", DOWN_FACTORS)
DOWNSCALE_LANCZOS = _scaled("downscale", "lanczos", DOWN_FACTORS)
UPSCALE_NEAREST = _scaled("upscale", "nearest", UP_FACTORS)
UPSCALE_BILINEAR = _scaled("upscale", "bilinear", UP_FACTORS)
UPSCALE_BICUBIC = _scaled("upscale", "bicubic", UP_FACTORS)
UPSCALE_LANCZOS = _scaled("upscale", "lanczos", UP_FACTORS)
