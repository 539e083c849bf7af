"""CNNDetection: an ImageNet ResNet-50 trained on one generator, with blur and JPEG compression as augmentation.

    z(x) = w . mean over positions of f(x) + b

A plain classifier trained on ProGAN alone recognises other convolutional generators, provided that training blurs and
re-compresses its images at random: without that it learns what post-processing removes.

Wang et al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from forgery_det.detectors.base import DetectorCard
from forgery_det.detectors.resnet_trunk import IMAGENET_RESNET50, ResNetDetector, any_size, imagenet_normalisation


class CNNDetection(ResNetDetector):
    """ResNet-50 on the whole image, not resized.

    Args:
        crop_px: Side of a centre crop, padded with black when the image is smaller; None scores the whole image. The
            official demonstration scores it whole, the official benchmark crops to 224.
        max_side_px: Longer sides lose their border, to bound the memory.
        backbone_weights: `timm` (ImageNet, as in the paper), a path, or None for random ones.
        layers: Blocks in each stage.
        width: Channels of the stem.

    Raises:
        ConfigError: A size is below 1.
        WeightsError: The backbone's weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="cnndetection",
        paper="Wang et al., CNN-generated images are surprisingly easy to spot... for now, CVPR 2020",
        year=2020,
        summary="whole-image ResNet-50, trained with blur and JPEG augmentation",
        backbone="ResNet-50",
        input="whole image, not resized",
        official_weights="https://github.com/PeterWang512/CNNDetection",
        licence="CC BY-NC-SA 4.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"layers": (1, 1, 1, 1), "width": 4, "crop_px": 64}

    def __init__(
        self,
        crop_px: int | None = None,
        max_side_px: int = 4096,
        backbone_weights: str | Path | None = None,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
    ) -> None:
        super().__init__(layers, width)
        self.fc = nn.Linear(self.n_features, 1)
        self.normalise = imagenet_normalisation()
        self.preprocess = any_size(crop_px, max_side_px)
        self.load_trunk(IMAGENET_RESNET50, backbone_weights)

    def network(self, x_BCHW: Tensor) -> Tensor:
        """Return `logit_B` for a normalised image."""
        feature_BC = self.trunk(x_BCHW).mean(dim=(2, 3))
        logit_B1: Tensor = self.fc(feature_BC)
        return logit_B1.squeeze(1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        return self.network(self.normalise(image_BCHW)).float()
