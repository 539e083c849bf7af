"""SAFE: a small network on the finest diagonal wavelet band, cropped instead of resized.

    HH(x)[i, j] = (x[2i, 2j] - x[2i, 2j+1] - x[2i+1, 2j] + x[2i+1, 2j+1]) / 2
    z(x) = (w1 - w0) . mean over positions of f(resize(HH(x))) + b1 - b0

Resizing before training hides local artefacts, so images are cropped; the band keeps only the diagonal detail of one
decomposition with the biorthogonal wavelet 1.3. The analysis high-pass of that wavelet is Haar's difference: only its
low-pass is longer, and lengthens the band by one coefficient at either end (symmetric extension). The band is brought
back to the image's size bilinearly. The network is that of NPR with two classes.

Li et al., "Improving Synthetic Image Detection Towards Generalization: An Image Transformation Perspective", KDD 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.base import DetectorCard
from forgery_det.detectors.resnet_trunk import ResNetDetector
from forgery_det.transforms.preprocess import CenterCrop, Preprocess


class SAFE(ResNetDetector):
    """Truncated ResNet-50 on the diagonal wavelet band of a centre crop; class 1 of its two classes is generated.

    Args:
        crop_px: Side of the centre crop, padded with black when the image is smaller; even.
        layers: Blocks in each stage.
        width: Channels of the stem.

    Raises:
        ConfigError: A size is below 1, or the side is odd.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="safe",
        paper=(
            "Li et al., Improving synthetic image detection towards generalization: an image transformation "
            "perspective, KDD 2025"
        ),
        year=2025,
        summary="truncated ResNet-50 on the finest diagonal wavelet band",
        backbone="ResNet-50, two stages",
        input="centre crop of 256 px",
        official_weights="https://github.com/Ouxiang-Li/SAFE",
        licence="Apache-2.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"layers": (1, 1), "width": 4, "crop_px": 64}

    def __init__(self, crop_px: int = 256, layers: Sequence[int] = (3, 4), width: int = 64) -> None:
        super().__init__(layers, width, stem_kernel=3)
        if crop_px % 2:
            raise ConfigError(f"Expected an even `crop_px`, got {crop_px}: the wavelet takes pixels in pairs.")
        self.fc1 = nn.Linear(self.n_features, 2)
        self.preprocess = Preprocess((CenterCrop(crop_px, crop_px),))

    def network(self, x_BCHW: Tensor) -> Tensor:
        """Return the two classes' logits `logit_B2`, real and generated, for an image of even sides."""
        band_BCHW = diagonal_band(x_BCHW)
        band_BCHW = F.interpolate(band_BCHW, size=x_BCHW.shape[-2:], mode="bilinear", antialias=True)
        feature_BC = self.trunk(band_BCHW.to(self.conv1.weight.dtype)).mean(dim=(2, 3))
        logit_B2: Tensor = self.fc1(feature_BC)
        return logit_B2

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`, generated minus real."""
        logit_B2 = self.network(image_BCHW).float()
        return logit_B2[:, 1] - logit_B2[:, 0]


def diagonal_band(x_BCHW: Tensor) -> Tensor:
    """Return the finest diagonal band of the biorthogonal wavelet 1.3, symmetric extension.

    Args:
        x_BCHW: Sides even, at least 2.

    Returns:
        `band_BCHW` with sides H / 2 + 2 and W / 2 + 2.

    Example:
        >>> diagonal_band(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))[0, 0, 1, 1].item()
        0.5
    """
    left_BCHW = torch.cat((x_BCHW[..., :2].flip(-1), x_BCHW, x_BCHW[..., -2:].flip(-1)), dim=-1)
    all_BCHW = torch.cat((left_BCHW[..., :2, :].flip(-2), left_BCHW, left_BCHW[..., -2:, :].flip(-2)), dim=-2)
    across_BCHW = all_BCHW[..., 0::2] - all_BCHW[..., 1::2]
    return (across_BCHW[..., 0::2, :] - across_BCHW[..., 1::2, :]) / 2
