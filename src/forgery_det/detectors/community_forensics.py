"""Community Forensics: a small vision transformer trained on images of thousands of generators.

    z(x) = w . ln(class token) + b

The network is plain and learns end to end; the paper's point is the training set. Accuracy on unseen generators keeps
rising with the number of generators trained on, whatever their likeness.

The published models see ImageNet's mean and spread, where timm's own weights of this transformer expect 0.5 and 0.5.

Paper: Park and Owens, Community Forensics: using thousands of generators to train fake image detectors, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.resnet_trunk import imagenet_normalisation
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort

_SMALLER: Mapping[str, Any] = {
    "backbone": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "image_size_px": 224,
    "resize_px": 256,
}


class CommunityForensics(Detector):
    """Vision transformer with one output; everything learns.

    Two models are published: 384 px (the default) and 224 px (`backbone="vit_small_patch16_224.augreg_in21k_ft_in1k",
    image_size_px=224, resize_px=256`). Their files tell which they are.

    Args:
        backbone: timm's name of a network.
        image_size_px: Side of the crop.
        resize_px: Short side before it.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown, or a size is below 1.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="community_forensics",
        paper="Park and Owens, Community Forensics: using thousands of generators to train fake image detectors, "
        "CVPR 2025",
        year=2025,
        summary="small vision transformer trained on images of thousands of generators",
        backbone="ViT-S/16",
        input="short side 440 px (bilinear), centre crop of 384 px",
        official_weights="hf://OwensLab/commfor-model-384",
        licence="MIT",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_vit",
        "image_size_px": 160,
        "resize_px": 176,
        "backbone_weights": None,
    }

    def __init__(
        self,
        backbone: str = "vit_small_patch16_384.augreg_in21k_ft_in1k",
        image_size_px: int = 384,
        resize_px: int = 440,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        self.preprocess = Preprocess((ResizeShort(resize_px, "bilinear"), CenterCrop(image_size_px, image_size_px)))
        self.normalise = imagenet_normalisation()
        self.vit = create_backbone(backbone, backbone_weights, n_outputs=1, image_size_px=image_size_px)

    @classmethod
    def settings_from(cls, state: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """Return the settings of the smaller published model when the file is its; the larger has the defaults."""
        positions = state.get("vit.pos_embed")
        return _SMALLER if positions is not None and positions.shape == (1, 1 + 14 * 14, 384) else {}

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        logit_B1: Tensor = self.vit(self.normalise(image_BCHW))
        return logit_B1.squeeze(1).float()
