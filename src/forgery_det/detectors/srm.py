"""The 30 linear filters of the spatial rich model: fixed high-pass kernels that leave the noise of an image.

Each predicts the centre pixel from its neighbours and keeps the error; divided by the weight of the centre, so that all
have it at -1 (the first one of each pair of neighbours: +1 beside it). Their order is the one that detectors and their
published weights use: 8 first-order, 4 second-order, 8 third-order, 4 + 4 edge, and 2 square kernels.

Fridrich & Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 2012.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_CENTRE = 2
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
_CLOCKWISE = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

_SQUARE_3 = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], np.float64)
_SQUARE_5 = np.array(
    [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]], np.float64
)

Kernel = npt.NDArray[np.float64]


def srm_filters() -> Tensor:
    """Return the filters as `weight_K1HW`, float32, shape (30, 1, 5, 5); each sums to 0.

    Example:
        >>> filters = srm_filters()
        >>> filters.shape, bool(filters.sum(dim=(1, 2, 3)).abs().max() < 1e-6)
        (torch.Size([30, 1, 5, 5]), True)
    """
    first = [_line({0: -1, 1: 1}, direction) for direction in _AROUND]
    second = [_line({-1: 1, 0: -2, 1: 1}, direction) / 2 for direction in _AROUND[:4]]
    third = [_line({-1: 1, 0: -3, 1: 3, 2: -1}, direction) / 3 for direction in _CLOCKWISE]
    small, large = np.pad(_SQUARE_3, 1) / 4, _SQUARE_5 / 12
    kernels = [*first, *second, *third, *_halves(small), *_halves(large), small, large]
    return torch.from_numpy(np.stack(kernels).astype(np.float32))[:, None]


def _line(weights: dict[int, float], direction: tuple[int, int]) -> Kernel:
    """Return a 5 x 5 kernel with `weights` at steps from the centre along a direction (down, right)."""
    kernel = np.zeros((5, 5))
    for step, weight in weights.items():
        kernel[_CENTRE + step * direction[0], _CENTRE + step * direction[1]] = weight
    return kernel


def _halves(square: Kernel) -> list[Kernel]:
    """Return the upper, right, lower and left half of a square kernel, the middle line included."""
    rows, columns = np.indices(square.shape) - _CENTRE
    return [np.where(half, square, 0.0) for half in (rows <= 0, columns >= 0, rows >= 0, columns <= 0)]
