"""A small convolutional network on noise residuals: 30 fixed filters beside filters that learn to predict a pixel.

    r_f(x) = clip(srm_f * 255 x, -T, T)    for each colour and each of the 30 SRM filters
    b_k(x) = sum over colours of w_kc * 255 x,    w_kc at the centre = -1, its other weights sum to 1
    z(x) = w . mean over positions of cnn([r, b]) + b

Both kinds leave the error of predicting a pixel from its neighbours, where content is weak and the traces of a camera's
or a generator's last steps are strong. The fixed filters need no data; the constrained ones adapt. The constraint holds
by projection: from the free weights v of a kernel, n beside the centre, follows w = v - mean(v) + 1 / n.

Fridrich & Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 2012; Bayar & Stamm, "Constrained
Convolutional Neural Networks: A New Approach Towards General Purpose Image Manipulation Detection", IEEE TIFS 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.srm import srm_filters
from forgery_det.transforms.preprocess import CenterCrop, Preprocess


class NoiseResidual(Detector):
    """Convolutional network on SRM and constrained (Bayar) residuals of a centre crop, not resized.

    Args:
        crop_px: Side of the centre crop; a smaller image is mirrored at its borders.
        n_constrained: Constrained filters; 0 leaves the fixed ones alone.
        truncation: Bound of the fixed residuals, in grey levels; larger errors are edges, not noise.
        channels: Channels of the layers; all but the first halve the resolution.

    Raises:
        ConfigError: A number is out of range.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="noise_residual",
        paper="after Fridrich & Kodovsky, IEEE TIFS 2012, and Bayar & Stamm, IEEE TIFS 2018",
        year=2018,
        summary="small CNN on fixed (SRM) and learnt (Bayar) prediction errors of pixels",
        backbone="own, 5 convolutions",
        input="centre crop of 256 px",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"crop_px": 32, "n_constrained": 2, "channels": (4, 8)}

    filters_K1HW: Tensor

    def __init__(
        self,
        crop_px: int = 256,
        n_constrained: int = 3,
        truncation: float = 3.0,
        channels: Sequence[int] = (32, 32, 64, 128, 128),
    ) -> None:
        super().__init__()
        if n_constrained < 0 or truncation <= 0 or not channels or min(channels) < 1:
            raise ConfigError(
                "Expected `n_constrained` of at least 0, `truncation` above 0 and `channels` of at least 1, got "
                f"{n_constrained}, {truncation} and {tuple(channels)}."
            )
        self.preprocess = Preprocess((CenterCrop(crop_px, crop_px, pad="reflect"),))
        self.truncation = truncation
        self.register_buffer("filters_K1HW", srm_filters(), persistent=False)
        self.constrained = ConstrainedConv(3, n_constrained) if n_constrained else None
        n_in = 3 * len(self.filters_K1HW) + n_constrained
        self.residual_norm = nn.BatchNorm2d(n_in)
        layers: list[nn.Module] = []
        for index, n_out in enumerate(channels):
            # Average pooling, not strides: a stride would alias the highest frequencies, which are the evidence.
            layers += [nn.AvgPool2d(3, stride=2, padding=1)] if index else []
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
            n_in = n_out
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(n_in, 1)

    def residuals(self, image_BCHW: Tensor) -> Tensor:
        """Return the residuals side by side, in grey levels: 30 of each colour, then the constrained ones."""
        batch, n_colours, height, width = image_BCHW.shape
        levels_BCHW = image_BCHW * 255.0
        single = levels_BCHW.reshape(batch * n_colours, 1, height, width)
        fixed = F.conv2d(_mirrored(single), self.filters_K1HW).clamp(-self.truncation, self.truncation)
        parts = [fixed.reshape(batch, -1, height, width)]
        if self.constrained is not None:
            parts.append(self.constrained(levels_BCHW))
        return torch.cat(parts, dim=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        x_BCHW = self.residual_norm(self.residuals(image_BCHW.to(self.head.weight.dtype)))
        logit_B1: Tensor = self.head(self.layers(x_BCHW).mean(dim=(2, 3)))
        return logit_B1.squeeze(1).float()


class ConstrainedConv(nn.Module):
    """5 x 5 convolution whose kernels predict the centre pixel: -1 there, the other weights sum to 1.

    Args:
        n_in: Input channels.
        n_out: Output channels.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.beside = nn.Parameter(torch.rand(n_out, n_in, 24) / 24)

    def kernels(self) -> Tensor:
        """Return `weight_OIHW`.

        Example:
            >>> kernels = ConstrainedConv(3, 2).kernels()
            >>> kernels[..., 2, 2].unique().tolist(), bool(kernels.sum(dim=(2, 3)).abs().max() < 1e-5)
            ([-1.0], True)
        """
        n_beside = self.beside.shape[-1]
        beside = self.beside - self.beside.mean(dim=-1, keepdim=True) + 1 / n_beside
        centre = -torch.ones_like(beside[..., :1])
        flat = torch.cat((beside[..., : n_beside // 2], centre, beside[..., n_beside // 2 :]), dim=-1)
        return flat.reshape(*flat.shape[:2], 5, 5)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the prediction errors, as large as the image."""
        return F.conv2d(_mirrored(image_BCHW), self.kernels())


def _mirrored(image_BCHW: Tensor) -> Tensor:
    # Zeros beyond the border would be the strongest edge of every image.
    return F.pad(image_BCHW, (2, 2, 2, 2), mode="reflect")
