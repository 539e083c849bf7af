"""FreqNet: convolutions between Fourier transforms, on nothing but high frequencies.

    high(x) = relu(Re F^-1(m . F(x))),    m = 0 on the centred half of each axis of the shifted spectrum, 1 elsewhere
    learn(x) = relu(Re F^-1(A Re F(x) + i B Im F(x))),    A, B: 1 x 1 convolutions

Four times the network drops low frequencies over positions, mixes channels, and convolves amplitude and phase in the
frequency domain; the first two times it also drops low frequencies across the channels. In between lie max-pooling and
the first two stages of a ResNet-50.

Tan et al., "Frequency-Aware Deepfake Detection: Improving Generalizability through Frequency Space Domain Learning",
AAAI 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._fourier import fourier_arrays, inverse2, spectrum2
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.resnet_trunk import add_stages, imagenet_normalisation, stage_channels
from forgery_det.transforms.preprocess import Preprocess, ResizeExact

_SPACE = (-2, -1)
_CHANNELS = (1,)


class FreqNet(Detector):
    """Frequency-space network.

    Args:
        image_size_px: The image is resized to this square, the aspect not kept.
        layers: Blocks in each of the two stages.
        width: Channels of the first convolutions.

    Raises:
        ConfigError: A size is too small.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="freqnet",
        paper=(
            "Tan et al., Frequency-aware deepfake detection: improving generalizability through frequency space "
            "learning, AAAI 2024"
        ),
        year=2024,
        summary="high frequencies over positions and channels, convolved in the frequency domain",
        backbone="own, with two stages of ResNet-50",
        input="resized to 256 x 256 px",
        official_weights="https://github.com/chuangchuangtan/FreqNet-DeepfakeDetection",
        licence="none stated",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"layers": (1, 1), "width": 8, "image_size_px": 64}

    layer1: nn.Sequential
    layer2: nn.Sequential

    def __init__(self, image_size_px: int = 256, layers: Sequence[int] = (3, 4), width: int = 64) -> None:
        super().__init__()
        if len(layers) != 2 or min(layers) < 1 or width < 4:
            raise ConfigError(f"Expected two stages and a width of at least 4, got {tuple(layers)} and {width}.")
        wide = stage_channels(width, 0, "bottleneck")
        for index, (n_in, n_out) in enumerate(((3, width), (width, width), (wide, wide), (wide, wide)), start=1):
            self._add_mixing(index, n_in, n_out)
        add_stages(self, layers, width, "bottleneck")
        self.fc1 = nn.Linear(stage_channels(width, 1, "bottleneck"), 1)
        self.normalise = imagenet_normalisation()
        self.preprocess = Preprocess((ResizeExact(image_size_px, image_size_px, "bilinear"),))

    def _add_mixing(self, index: int, n_in: int, n_out: int) -> None:
        # The official code draws these from a unit normal, which grows a hundredfold through the network.
        weight = torch.empty(n_out, n_in, 1, 1)
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
        self.register_parameter(f"weight{index}", nn.Parameter(weight))
        self.register_parameter(f"bias{index}", nn.Parameter(torch.zeros(n_out)))
        for part in ("real", "imag"):
            self.add_module(f"{part}conv{index}", nn.Conv2d(n_out, n_out, 1, bias=False))

    def network(self, x_BCHW: Tensor) -> Tensor:
        """Return `logit_B` for a normalised image."""
        x_BCHW = self._learn(high_pass(self._mix(high_pass(x_BCHW, _SPACE), 1), _CHANNELS), 1)
        x_BCHW = self._learn(high_pass(self._mix(high_pass(x_BCHW, _SPACE), 2, stride=2), _CHANNELS), 2)
        x_BCHW = self.layer1(F.max_pool2d(x_BCHW, kernel_size=3, stride=2, padding=1))
        x_BCHW = self._learn(self._mix(high_pass(x_BCHW, _SPACE), 3), 3)
        x_BCHW = self._learn(self._mix(high_pass(x_BCHW, _SPACE), 4, stride=2), 4)
        feature_BC = self.layer2(x_BCHW).mean(dim=(2, 3))
        logit_B1: Tensor = self.fc1(feature_BC)
        return logit_B1.squeeze(1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        return self.network(self.normalise(image_BCHW)).float()

    def _mix(self, x_BCHW: Tensor, index: int, stride: int = 1) -> Tensor:
        weight, bias = self.get_parameter(f"weight{index}"), self.get_parameter(f"bias{index}")
        return F.relu(F.conv2d(x_BCHW, weight, bias, stride=stride))

    def _learn(self, x_BCHW: Tensor, index: int) -> Tensor:
        """Convolve the real and the imaginary part of the spectrum; a 1 x 1 convolution needs no shifted spectrum."""
        dtype = x_BCHW.dtype
        if torch.compiler.is_exporting():
            size = (x_BCHW.shape[-2] * x_BCHW.shape[-1]) ** 0.5
            real, imag = spectrum2(x_BCHW.float())
            real = self.get_submodule(f"realconv{index}")(real / size)
            imag = self.get_submodule(f"imagconv{index}")(imag / size)
            return F.relu(inverse2(real, imag) * size)
        spectrum = torch.fft.fft2(x_BCHW.float(), norm="ortho")
        real = self.get_submodule(f"realconv{index}")(spectrum.real.to(dtype)).float()
        imag = self.get_submodule(f"imagconv{index}")(spectrum.imag.to(dtype)).float()
        return F.relu(torch.fft.ifft2(torch.complex(real, imag), norm="ortho").real.to(dtype))


def high_pass(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Return the high frequencies of `x` along `dims`, negative values cut to 0.

    Of a side n, the 2 floor(n / 4) frequencies around 0 go, over all of `dims` at once (a square, for two).

    Example:
        >>> high_pass(torch.ones(1, 1, 8, 8), (-2, -1)).abs().max().item() < 1e-6
        True
    """
    if torch.compiler.is_exporting():
        return F.relu(x - low_part(x, dims))
    dtype = x.dtype
    spectrum = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=tuple(dims), norm="ortho"), dim=tuple(dims))
    low = torch.ones((), dtype=torch.bool, device=x.device)
    for dim in dims:
        n = x.shape[dim]
        position = torch.arange(n, device=x.device)
        near = (position >= n // 2 - n // 4) & (position < n // 2 + n // 4)
        low = low & near.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    spectrum = torch.fft.ifftshift(spectrum.masked_fill(low, 0), dim=tuple(dims))
    return F.relu(torch.fft.ifftn(spectrum, dim=tuple(dims), norm="ortho").real.to(dtype))


def low_part(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Return what `high_pass` takes away, as products with real matrices: `Re(L x)` or `Re(L_h x L_w')`.

    `L = F^-1 diag(low) F`, of one side, is complex because the low frequencies reach one further below 0 than above.

    Example:
        >>> x = torch.randn(1, 4, 8, 12)
        >>> torch.allclose(F.relu(x - low_part(x, (-2, -1))), high_pass(x, (-2, -1)), atol=1e-5)
        True
    """
    if len(dims) == 1:
        real_NN, _ = (matrix.to(x) for matrix in _low_matrix(x.shape[dims[0]]))
        return torch.movedim(torch.movedim(x, dims[0], -1) @ real_NN.T, -1, dims[0])
    (real_h, imag_h), (real_w, imag_w) = ([m.to(x) for m in _low_matrix(x.shape[dim])] for dim in dims)
    return real_h @ x @ real_w.T - imag_h @ x @ imag_w.T


def _low_matrix(n: int) -> tuple[Tensor, Tensor]:
    """Return the real and the imaginary part of `L` of a side n, float64."""
    cos_NN, sin_NN = fourier_arrays(n)
    # `high_pass` shifts the spectrum: position p there is frequency p - n // 2.
    frequency_K = np.arange(n // 2 - n // 4, n // 2 + n // 4) - n // 2
    cos_KN, sin_KN = cos_NN[frequency_K % n], sin_NN[frequency_K % n]
    real_NN, imag_NN = cos_KN.T @ cos_KN + sin_KN.T @ sin_KN, sin_KN.T @ cos_KN - cos_KN.T @ sin_KN
    return torch.from_numpy(real_NN / n), torch.from_numpy(imag_NN / n)
