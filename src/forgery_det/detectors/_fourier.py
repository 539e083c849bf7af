"""Fourier transforms as products with matrices: for graphs, whose runtimes have no complex numbers.

With `F = C - iS`, `C = cos(2 pi f x / n)` and `S = sin(2 pi f x / n)`, the transform of a real image `x` over its last
two axes is

    fft2(x) = (C x C' - S x S') - i (C x S' + S x C')

Eager torch uses its FFT, which is faster; `torch.compiler.is_exporting()` tells when a graph is made. The matrices are
computed in float64 and rounded once, so both ways agree to float32's rounding; the tests hold that.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FloatArray = NDArray[np.float64]


def fourier_arrays(n: int) -> tuple[FloatArray, FloatArray]:
    """Return `cos_NN` and `sin_NN`, frequencies by positions, float64.

    In numpy, so that a traced graph holds the numbers and not the way to them.

    Example:
        >>> cos_NN, sin_NN = fourier_arrays(8)
        >>> np.allclose(cos_NN - 1j * sin_NN, np.fft.fft(np.eye(8)))
        True
    """
    # The product is reduced before it becomes an angle, so that large ones lose no digits.
    position_N = np.arange(n)
    angle_NN = (position_N[:, None] * position_N % n) * (2 * math.pi / n)
    return np.cos(angle_NN), np.sin(angle_NN)


def spectrum2(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part of `torch.fft.fft2(x)` of a real float32 `x`.

    Example:
        >>> x = torch.rand(2, 6, 8)
        >>> real, imaginary = spectrum2(x)
        >>> torch.allclose(torch.complex(real, imaginary), torch.fft.fft2(x), atol=1e-4)
        True
    """
    (cos_h, sin_h), (cos_w, sin_w) = _sides(x)
    rows_cos, rows_sin = cos_h @ x, sin_h @ x
    return rows_cos @ cos_w - rows_sin @ sin_w, -(rows_cos @ sin_w + rows_sin @ cos_w)


def inverse2(real: Tensor, imaginary: Tensor) -> Tensor:
    """Return the real part of `torch.fft.ifft2(real + i imaginary)`.

    Example:
        >>> x = torch.rand(2, 6, 8)
        >>> torch.allclose(inverse2(*spectrum2(x)), x, atol=1e-5)
        True
    """
    (cos_h, sin_h), (cos_w, sin_w) = _sides(real)
    first = cos_h @ real - sin_h @ imaginary
    second = cos_h @ imaginary + sin_h @ real
    return (first @ cos_w - second @ sin_w) / (real.shape[-2] * real.shape[-1])


def _sides(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    found = []
    for n in x.shape[-2:]:
        cos_NN, sin_NN = (torch.from_numpy(array.astype(np.float32)) for array in fourier_arrays(int(n)))
        found.append((cos_NN.to(x.device), sin_NN.to(x.device)))
    return found
