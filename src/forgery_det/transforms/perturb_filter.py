"""Perturbations that smooth or roughen: Gaussian blur and Gaussian noise.

Blur convolves each channel with exp(-x^2 / (2 sigma^2)), cut at 4 sigma, the image mirrored at its border; float32,
rounded to nearest at the end. Pillow's own Gaussian blur is a chain of box filters, and its sigma is nominal only.
Noise adds N(0, sigma) to each sample in 8-bit steps, then rounds and clips.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.preprocess import ImageArray


def to_uint8(values_HWC: NDArray[np.floating]) -> ImageArray:
    """Round to nearest and clip to [0, 255].

    Example:
        >>> to_uint8(np.array([-3.0, 0.6, 300.0])).tolist()
        [0, 1, 255]
    """
    rounded: ImageArray = np.clip(np.rint(values_HWC), 0, 255).astype(np.uint8)
    return rounded


def blur(image_HWC: ImageArray, sigma_px: float) -> ImageArray:
    """Blur with a Gaussian of standard deviation `sigma_px`."""
    smooth = ndimage.gaussian_filter(image_HWC.astype(np.float32), (sigma_px, sigma_px, 0.0), truncate=4.0)
    return to_uint8(smooth)


def add_noise(image_HWC: ImageArray, rng: np.random.Generator, sigma: float) -> ImageArray:
    """Add Gaussian noise with standard deviation `sigma`, in 8-bit steps, to each sample."""
    return to_uint8(image_HWC + np.float32(sigma) * rng.standard_normal(image_HWC.shape, dtype=np.float32))


def _blur(image_HWC: ImageArray, rng: np.random.Generator, sigma_px: float) -> ImageArray:  # noqa: ARG001
    return blur(image_HWC, sigma_px)


BLUR = Perturbation(
    "blur", "filter", "Gaussian blur", tuple({"sigma_px": sigma} for sigma in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)), _blur
)
NOISE = Perturbation(
    "noise", "filter", "Gaussian noise in 8-bit steps", tuple({"sigma": s} for s in (2, 4, 8, 16, 32)), add_noise
)
