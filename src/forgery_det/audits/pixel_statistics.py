"""Statistics of the finest pixel structure, from numpy alone: what a cheap probe can see of how an image was made.

Two things. The radial power spectrum: 32 x 32 px blocks under a Hann window, their mean squared Fourier magnitude,
averaged over rings of equal frequency, in logarithms (generators leave other high frequencies than cameras: Durall,
Keuper and Keuper, "Watch your Up-Convolution", arXiv 2003.01826). And the residual r = x - mean of its 3 x 3
neighbourhood: its size and peakedness in each colour, its correlations at small offsets, and between colours.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter

from forgery_det.metrics.inputs import FloatArray
from forgery_det.transforms.preprocess import ImageArray

BLOCK_PX = 32
MAX_BLOCKS = 4
"""Blocks along each side at the most, taken from the middle."""
OFFSETS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0))
N_RINGS = BLOCK_PX // 2
N_STATISTICS = N_RINGS + 2 * 3 + len(OFFSETS) + 3
_EPSILON = 1e-6


def pixel_statistics(image_HWC: ImageArray) -> FloatArray:
    """Return `N_STATISTICS` numbers; an image smaller than a block is repeated to that size.

    Example:
        >>> pixel_statistics(np.zeros((40, 50, 3), np.uint8)).shape
        (32,)
    """
    height, width = image_HWC.shape[:2]
    tiles = (-(-BLOCK_PX // height), -(-BLOCK_PX // width), 1)
    middle = _middle(np.tile(image_HWC, tiles)).astype(np.float64)
    luma_HW = middle @ np.array([0.299, 0.587, 0.114])
    residual_HWC = middle - uniform_filter(middle, size=(3, 3, 1), mode="reflect")
    return np.concatenate([_spectrum(luma_HW), _moments(residual_HWC), _correlations(residual_HWC)])


def _middle(image_HWC: ImageArray) -> ImageArray:
    """Return the middle, whole blocks and at most `MAX_BLOCKS` along each side."""
    sides = [min(side // BLOCK_PX, MAX_BLOCKS) * BLOCK_PX for side in image_HWC.shape[:2]]
    top, left = ((have - want) // 2 for have, want in zip(image_HWC.shape[:2], sides, strict=True))
    return image_HWC[top : top + sides[0], left : left + sides[1]]


def _spectrum(luma_HW: FloatArray) -> FloatArray:
    rows, columns = (side // BLOCK_PX for side in luma_HW.shape)
    block_KNN = luma_HW.reshape(rows, BLOCK_PX, columns, BLOCK_PX).swapaxes(1, 2).reshape(-1, BLOCK_PX, BLOCK_PX)
    window = np.hanning(BLOCK_PX)
    block_KNN = (block_KNN - block_KNN.mean(axis=(1, 2), keepdims=True)) * window[:, None] * window
    power_NN = (np.abs(np.fft.fft2(block_KNN)) ** 2).mean(axis=0)
    frequency = np.fft.fftfreq(BLOCK_PX) * BLOCK_PX
    ring_NN = np.minimum(np.hypot(frequency[:, None], frequency).astype(int), N_RINGS - 1)
    sums = np.bincount(ring_NN.ravel(), weights=power_NN.ravel(), minlength=N_RINGS)
    return np.asarray(np.log(sums / np.bincount(ring_NN.ravel(), minlength=N_RINGS) + _EPSILON))


def _moments(residual_HWC: FloatArray) -> FloatArray:
    variance = (residual_HWC**2).mean(axis=(0, 1))
    fourth = (residual_HWC**4).mean(axis=(0, 1))
    return np.concatenate([np.log(variance + _EPSILON), np.log((fourth + _EPSILON) / (variance**2 + _EPSILON))])


def _correlations(residual_HWC: FloatArray) -> FloatArray:
    """Return correlations of the residual with itself at `OFFSETS`, and between red, green and blue."""
    mean_HW = residual_HWC.mean(axis=2)
    height, width = mean_HW.shape
    power = float((mean_HW**2).mean()) + _EPSILON
    found = [float((mean_HW[: height - y, : width - x] * mean_HW[y:, x:]).mean()) / power for y, x in OFFSETS]
    scale = np.sqrt((residual_HWC**2).mean(axis=(0, 1))) + _EPSILON
    for a, b in ((0, 1), (0, 2), (1, 2)):
        found.append(float((residual_HWC[..., a] * residual_HWC[..., b]).mean() / (scale[a] * scale[b])))
    return np.array(found)
