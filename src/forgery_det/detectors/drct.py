"""DRCT: any backbone, trained against reconstructions of real images by a diffusion model.

    z(x) = w . e(x) + b,    e(x) = the backbone's embedding, 1024 numbers

A diffusion model that encodes and decodes a real photo changes almost nothing of it, and leaves its own trace. Real
photos and such reconstructions are the hardest pairs there are; a contrastive loss with a margin on the embedding
(`bce_margin`) keeps them apart, beside the usual classification loss. The network itself is plain: what is published is
a way to train.

Two backbones are released: CLIP ViT-L/14 (embedding: a linear layer on the projected class token) and ConvNeXt-B. Both
see ImageNet's mean and spread. Two classes there; ours is generated minus real.

Paper: Chen et al., DRCT: Diffusion reconstruction contrastive training towards universal detection of diffusion
generated images, ICML 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors._clip_vit import (
    CLIP_BACKBONES,
    ClipSpec,
    ClipTower,
    fill_backbone,
    from_openai,
    without_text_tower,
)
from forgery_det.detectors._heads import one_logit_head
from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.resnet_trunk import imagenet_normalisation
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_opencv import CenterCropFloor

_CONVNEXTS = {"convnext_base": "convnext_base.fb_in22k", "test_convnext": "test_convnext"}
_INPUT_PX = 224
_TELLING = {
    "convnext_base": ("model.stem.0.weight", (128, 3, 4, 4)),
    "clip_vit_l14": ("model.model.visual.conv1.weight", (1024, 3, 14, 14)),
}


class DRCT(Detector):
    """An embedding and a linear layer.

    Of ConvNeXt everything learns; CLIP is frozen, as its authors train it, and the layers after it learn.

    Args:
        backbone: `convnext_base`, or a name in `CLIP_BACKBONES`. The authors' two files tell which they are.
        embedding_dim: Size of the embedding, at least 1.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="drct",
        paper="Chen et al., DRCT: Diffusion reconstruction contrastive training towards universal detection of "
        "diffusion generated images, ICML 2024",
        year=2024,
        summary="plain network trained against diffusion reconstructions of real images",
        backbone="ConvNeXt-B or CLIP ViT-L/14",
        input="centre crop of 224 px, not resized",
        official_weights="https://github.com/beibuwandeluori/DRCT",
        licence="none stated",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_clip_vit",
        "embedding_dim": 16,
        "backbone_weights": None,
    }
    embedding_into = "fc"

    def __init__(
        self,
        backbone: str = "convnext_base",
        embedding_dim: int = 1024,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ConfigError(f"Expected embedding_dim of at least 1, got {embedding_dim}.")
        side_px = CLIP_BACKBONES[backbone].image_px if backbone in CLIP_BACKBONES else _INPUT_PX
        self.preprocess = Preprocess((CenterCropFloor(side_px, side_px),))
        self.normalise = imagenet_normalisation()
        self.model: nn.Module
        if backbone in CLIP_BACKBONES:
            self.model = _ClipEmbedding(CLIP_BACKBONES[backbone], embedding_dim, backbone_weights)
        elif backbone in _CONVNEXTS:
            self.model = create_backbone(_CONVNEXTS[backbone], backbone_weights, embedding_dim)
        else:
            raise ConfigError(
                f"Unknown backbone {backbone!r}: {did_you_mean(backbone, (*_CONVNEXTS, *CLIP_BACKBONES))}"
            )
        self.fc = nn.Linear(embedding_dim, 1)

    @classmethod
    def settings_from(cls, state: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """Return the backbone of one of the two released files, told by a tensor that the other lacks."""
        for backbone, (name, shape) in _TELLING.items():
            if name in state and state[name].shape == shape:
                return {"backbone": backbone}
        return {}

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' state dict of either backbone, or one of ours."""
        named = dict(state)
        if isinstance(self.model, _ClipEmbedding):
            named = from_openai(without_text_tower(named, "model.model."), "model.model.visual.", "model.clip.")
        load_strict(self, one_logit_head(named, "fc"))

    def embedding(self, image_BCHW: Tensor) -> Tensor:
        """Return `embedding_BD`, on which the contrastive loss acts."""
        embedding_BD: Tensor = self.model(self.normalise(image_BCHW))
        return embedding_BD

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        logit_B1: Tensor = self.fc(self.embedding(image_BCHW))
        return logit_B1.squeeze(1).float()


class _ClipEmbedding(nn.Module):
    def __init__(self, spec: ClipSpec, embedding_dim: int, backbone_weights: str | Path | None) -> None:
        super().__init__()
        self.clip = ClipTower(spec)
        fill_backbone(self.clip, backbone_weights)
        self.clip.requires_grad_(False)
        self.fc = nn.Linear(spec.embedding, embedding_dim)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `embedding_BD`."""
        embedding_BD: Tensor = self.fc(self.clip(image_BCHW))
        return embedding_BD
