"""An emulated photograph of a screen: pixel grid beats, slight perspective, lens blur, tone curve, noise, JPEG.

It has the ingredients of a recaptured image, not the look of one display and one phone: no lens distortion, no glare,
no demosaicing. The order is that of the light:

    moire         v -> v (1 + a sin(2 pi (f . x) + phase_c)), a beat of 6 to 20 px in a random direction; the phase
                  differs between channels, as the stripes of a display do
    perspective   corners move inwards by up to a share of the side; bilinear; nothing outside the image is seen
    blur, gamma, noise, JPEG     as the perturbations of these names
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.perturb_codec import resave
from forgery_det.transforms.perturb_colour import gamma
from forgery_det.transforms.perturb_filter import add_noise, blur, to_uint8
from forgery_det.transforms.preprocess import ImageArray

_SHORTEST_BEAT_PX, _LONGEST_BEAT_PX = 6.0, 20.0
_PHASE_STEP = 2 * np.pi / 3
_BAND_ROWS = 64
"""Rows of a moire pattern that are computed at a time, so that a large image needs no second copy in floats."""


def _moire(image_HWC: ImageArray, rng: np.random.Generator, amplitude: float) -> ImageArray:
    height, width = image_HWC.shape[:2]
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    frequency = 2 * np.pi / rng.uniform(_SHORTEST_BEAT_PX, _LONGEST_BEAT_PX)
    y_H = np.sin(angle) * frequency * np.arange(height)
    x_WC = np.cos(angle) * frequency * np.arange(width)[:, None] + phase + _PHASE_STEP * np.arange(3)
    # sin(y + x) = sin y cos x + cos y sin x: sines of rows and columns only, not of every pixel.
    sin_H11, cos_H11 = ((amplitude * f(y_H)).astype(np.float32)[:, None, None] for f in (np.sin, np.cos))
    sin_WC, cos_WC = (f(x_WC).astype(np.float32) for f in (np.sin, np.cos))
    result_HWC = np.empty_like(image_HWC)
    for top in range(0, height, _BAND_ROWS):
        band = slice(top, top + _BAND_ROWS)
        wave_BWC = sin_H11[band] * cos_WC + cos_H11[band] * sin_WC
        result_HWC[band] = to_uint8(image_HWC[band] * (1 + wave_BWC))
    return result_HWC


def _tilt(image_HWC: ImageArray, rng: np.random.Generator, share: float) -> ImageArray:
    height, width = image_HWC.shape[:2]
    corner = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    seen = corner + inwards * rng.uniform(0, share, (4, 2)) * (width, height)
    picture = Image.fromarray(image_HWC)
    coefficients = _perspective(corner, seen)
    tilted = picture.transform((width, height), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(tilted)


def _perspective(out: NDArray[np.float64], source: NDArray[np.float64]) -> list[float]:
    """Return (a ... h) with source = ((a x + b y + c) / (g x + h y + 1), (d x + e y + f) / (g x + h y + 1))."""
    rows, values = [], []
    for (x, y), (u, v) in zip(out, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    solved: list[float] = np.linalg.solve(np.array(rows), np.array(values)).tolist()
    return solved


def _recapture(
    image_HWC: ImageArray,
    rng: np.random.Generator,
    moire: float,
    tilt: float,
    sigma_px: float,
    exponent: float,
    noise: float,
    quality: int,
) -> ImageArray:
    image_HWC = _tilt(_moire(image_HWC, rng, moire), rng, tilt)
    image_HWC = add_noise(gamma(blur(image_HWC, sigma_px), exponent), rng, noise)
    return resave(image_HWC, "jpeg", quality)


RECAPTURE = Perturbation(
    "recapture",
    "chain",
    "emulated photograph of a screen: moire, slight perspective, blur, tone curve, noise, JPEG",
    (
        {"moire": 0.03, "tilt": 0.01, "sigma_px": 0.5, "exponent": 1.05, "noise": 2, "quality": 90},
        {"moire": 0.06, "tilt": 0.03, "sigma_px": 0.8, "exponent": 1.1, "noise": 4, "quality": 80},
        {"moire": 0.12, "tilt": 0.06, "sigma_px": 1.2, "exponent": 1.2, "noise": 8, "quality": 70},
    ),
    _recapture,
)
