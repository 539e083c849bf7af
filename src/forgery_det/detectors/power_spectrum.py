"""Logistic regression on the azimuthally averaged power spectrum: the simplest detector of up-sampling traces.

    P(r) = mean over frequencies k with round(|k|) = r of log(|F(x)[k]|^2 / (H W) + q)
    z(x) = w . (P - m) / s + b

x is the brightness of a centre crop, not resized, and q = (1/255)^2 / 12 the power of rounding to 8 bits: what lies
below it is not signal. m and s are the mean and spread of each radius over the train split. Up-sampling layers of
generators leave too much or too little power at high frequencies; this sees that and nothing else.

Durall et al., "Watch Your Up-Convolution: CNN Based Generative Deep Neural Networks are Failing to Reproduce Spectral
Distributions", CVPR 2020. Their classifier is a support vector machine or a logistic regression on the same curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._fourier import spectrum2
from forgery_det.detectors.base import DetectorCard, FrozenFeatures
from forgery_det.detectors.frozen_probe import ScaledLinear
from forgery_det.transforms.preprocess import CenterCrop, Preprocess

_LUMA = (0.299, 0.587, 0.114)
_ROUNDING_POWER = 1 / 255**2 / 12


class PowerSpectrum(FrozenFeatures):
    """Linear head on the log power of each spatial frequency.

    Args:
        crop_px: Side of the centre crop; a smaller image is mirrored at its borders.

    Raises:
        ConfigError: The crop is below 8 px.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="power_spectrum",
        paper="Durall et al., Watch your up-convolution, CVPR 2020",
        year=2020,
        summary="logistic regression on the azimuthally averaged log power spectrum",
        backbone="none",
        input="centre crop of 256 px",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"crop_px": 32}

    head: ScaledLinear
    radius_HW: Tensor
    index_RK: Tensor
    share_RK: Tensor
    luma_C11: Tensor

    def __init__(self, crop_px: int = 256) -> None:
        super().__init__()
        if crop_px < 8:
            raise ConfigError(f"Expected `crop_px` of at least 8, got {crop_px}.")
        self.preprocess = Preprocess((CenterCrop(crop_px, crop_px, pad="reflect"),))
        radius_HW = frequency_radius(crop_px)
        self.register_buffer("radius_HW", radius_HW, persistent=False)
        index_RK, share_RK = ring_members(radius_HW)
        self.register_buffer("index_RK", index_RK, persistent=False)
        self.register_buffer("share_RK", share_RK, persistent=False)
        self.register_buffer("luma_C11", torch.tensor(_LUMA).reshape(3, 1, 1), persistent=False)
        self.head = ScaledLinear(int(radius_HW.max()) + 1, standardise=True)

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BR`, the mean log power at each radius, float32."""
        grey_BHW = (image_BCHW.float() * self.luma_C11.float()).sum(dim=1)
        if torch.compiler.is_exporting():
            # onnxruntime adds to scattered places in several threads at once and loses sums; a gather cannot.
            log_BN = log_power(grey_BHW, self.radius_HW)
            return (log_BN[:, self.index_RK] * self.share_RK.float()).sum(dim=-1)
        return radial_log_power(grey_BHW, self.radius_HW)

    def fit_feature_scaling(self, feature: Tensor) -> None:
        """Set the head's scaling from `feature_NR` of the train split."""
        self.head.fit(feature)


def frequency_radius(side_px: int) -> Tensor:
    """Return the distance of each frequency of a square image from frequency 0, rounded, `radius_HW`, int64.

    Example:
        >>> frequency_radius(4).tolist()
        [[0, 1, 2, 1], [1, 1, 2, 1], [2, 2, 3, 2], [1, 1, 2, 1]]
    """
    frequency = torch.fft.fftfreq(side_px, 1 / side_px, dtype=torch.float64)
    return torch.hypot(frequency[:, None], frequency[None, :]).round().long()


def ring_members(radius_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frequencies at each radius, `index_RK`, and the share of each in their mean, `share_RK`.

    K is the size of the largest ring; smaller ones are filled up with frequencies whose share is 0.

    Example:
        >>> index_RK, share_RK = ring_members(frequency_radius(4))
        >>> index_RK.shape, share_RK.sum(dim=1).tolist()
        (torch.Size([4, 8]), [1.0, 1.0, 1.0, 1.0])
    """
    radius_N = radius_HW.flatten()
    rings = [(radius_N == radius).nonzero().squeeze(1) for radius in range(int(radius_N.max()) + 1)]
    pad = nn.utils.rnn.pad_sequence
    share_RK = pad([torch.full((len(ring),), 1.0 / len(ring)) for ring in rings], batch_first=True)
    return pad(rings, batch_first=True), share_RK


def radial_log_power(grey_BHW: Tensor, radius_HW: Tensor) -> Tensor:
    """Return the mean log power of the frequencies at each radius, `power_BR`, float32.

    Args:
        grey_BHW: Brightness in [0, 1].
        radius_HW: From `frequency_radius`.
    """
    log_BN, index_N = log_power(grey_BHW, radius_HW), radius_HW.flatten()
    count_R = torch.bincount(index_N)
    total_BR = log_BN.new_zeros(len(log_BN), len(count_R)).index_add_(1, index_N, log_BN)
    mean_BR: Tensor = total_BR / count_R
    return mean_BR


def log_power(grey_BHW: Tensor, radius_HW: Tensor) -> Tensor:
    """Return the log power of each frequency, `log_BN`; arguments as in `radial_log_power`."""
    if torch.compiler.is_exporting():
        # Over its mean, a picture's spectrum is small away from frequency 0: rounding stays where it cannot be seen.
        mean_B11 = grey_BHW.float().mean(dim=(1, 2), keepdim=True)
        real_BHW, imag_BHW = spectrum2(grey_BHW.float() - mean_B11)
        constant_BHW = mean_B11.square() * radius_HW.numel() * (radius_HW == 0)
        power_BHW = (real_BHW.square() + imag_BHW.square()) / radius_HW.numel() + constant_BHW
    else:
        power_BHW = torch.fft.fft2(grey_BHW.float()).abs().square() / radius_HW.numel()
    return (power_BHW + _ROUNDING_POWER).log().flatten(1)
