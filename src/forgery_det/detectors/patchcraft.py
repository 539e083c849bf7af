"""PatchCraft: the difference between the noise of smooth patches and that of busy patches.

    d(x) = h(poor mosaic) - h(rich mosaic),    h = clip(bn(conv(30 SRM filters of each colour)), -5, 5)
    z(x) = w . mean over positions of f(d(x)) + b

Generators imitate the statistics of smooth and of textured regions unevenly well, while a camera's noise ties the two
together. Patches are sorted by texture and laid out as two mosaics, which destroys the content of the image; fixed
high-pass filters take what is left of it.

The official evaluation draws the patches at random each time; here their places follow from a seed and the image's
size.

Zhong et al., "PatchCraft: Exploring Texture Patch for Efficient AI-generated Image Detection", arXiv 2311.12397.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.srm import srm_filters
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_patches import TextureMosaics

_FILTERS = "group1.hpf.weight"
_CLIP = 5.0


class PatchCraft(Detector):
    """Contrast of rich and poor texture.

    Args:
        patch_px: Side of a patch.
        grid: Patches along a side of a mosaic.
        n_patches: Patches that are drawn from an image.
        seed: Of the patches' places.
        width: Channels of all layers.

    Raises:
        ConfigError: A number is out of range.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="patchcraft",
        paper="Zhong et al., PatchCraft: exploring texture patch for efficient AI-generated image detection, 2023",
        year=2023,
        summary="noise of smooth patches against noise of textured patches",
        backbone="own, 10 convolutions on SRM filters",
        input="2 x 64 of 192 patches of 32 px, by texture",
        official_weights="https://github.com/mever-team/sidbench (RPTC.pth)",
        licence="Apache-2.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"patch_px": 16, "grid": 2, "n_patches": 8, "width": 4}

    def __init__(
        self, patch_px: int = 32, grid: int = 8, n_patches: int = 192, seed: int = 9100, width: int = 32
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess((TextureMosaics(patch_px, grid, n_patches, seed),))
        filters_K1HW = srm_filters()
        self.group1 = _FixedFilters(filters_K1HW)
        self.group1_b = nn.Sequential(
            nn.Conv2d(3 * len(filters_K1HW), width, 3, padding=1), nn.BatchNorm2d(width), nn.Hardtanh(-_CLIP, _CLIP)
        )
        self.group2 = _convolutions(width, 4)
        self.group3 = _convolutions(width, 2)
        self.group4 = _convolutions(width, 2)
        self.group5 = _convolutions(width, 2)
        self.fc2 = nn.Linear(width, 1)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the official state dict; the fixed filters may be left out of it."""
        load_strict(self, {_FILTERS: self.group1.hpf.weight, **state})

    def network(self, views_BVCHW: Tensor) -> Tensor:
        """Return `logit_B` for the mosaics of poor and rich texture, in [0, 1]."""
        x_BCHW = self._noise(views_BVCHW[:, 0]) - self._noise(views_BVCHW[:, 1])
        for group in (self.group2, self.group3, self.group4):
            x_BCHW = F.avg_pool2d(group(x_BCHW), kernel_size=3, stride=2, padding=1)
        feature_BC = self.group5(x_BCHW).mean(dim=(2, 3))
        logit_B1: Tensor = self.fc2(feature_BC)
        return logit_B1.squeeze(1)

    def forward(self, image_BVCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        return self.network(image_BVCHW.to(self.fc2.weight.dtype)).float()

    def _noise(self, image_BCHW: Tensor) -> Tensor:
        """Filter each colour by itself."""
        batch, channels, height, width = image_BCHW.shape
        noise = self.group1(image_BCHW.reshape(batch * channels, 1, height, width))
        clipped_BCHW: Tensor = self.group1_b(noise.reshape(batch, -1, height, width))
        return clipped_BCHW


class _FixedFilters(nn.Module):
    """Filters that never learn, on one channel."""

    def __init__(self, filters_K1HW: Tensor) -> None:
        super().__init__()
        self.hpf = nn.Conv2d(1, len(filters_K1HW), filters_K1HW.shape[-1], padding="same", bias=False)
        self.hpf.weight = nn.Parameter(filters_K1HW, requires_grad=False)

    def forward(self, image_B1HW: Tensor) -> Tensor:
        noise_BKHW: Tensor = self.hpf(image_B1HW)
        return noise_BKHW


def _convolutions(width: int, n_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(n_layers):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)
