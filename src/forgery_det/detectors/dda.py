"""DDA: a DINOv2 tuned by low-rank parts on pairs that differ in nothing but the trace of a decoder.

    z(x) = w . ln(class token) + b

Real images are passed through the autoencoder of a latent diffusion model, then given back the frequency content and
the compression that the passage took from them. Both members of a pair then agree in content, size, format and
spectrum, so that a detector can learn none of those. The network is plain: low-rank parts beside all linear layers of a
frozen DINOv2, at 336 px.

The learnt positions are those of 518 px, interpolated (bicubic, offset 0.1, not antialiased) as the published
backbone's code does. Images are normalised with CLIP's constants.

Paper: Chen et al., Dual data alignment makes AI-generated image detector easier generalizable, NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._adapters import LoraLinear
from forgery_det.detectors._clip_vit import CLIP_MEAN, CLIP_STD
from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.base import Detector, DetectorCard, Normalise
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import CenterCrop, Preprocess

_POSITION_OFFSET = 0.1
_OFFICIAL = (
    ("base_model.model.", "backbone."),
    ("base_model.fc.", "head."),
    (".original_layer.", ".base."),
    (".lora.lora_A", ".lora_a"),
    (".lora.lora_B", ".lora_b"),
)


class DDA(Detector):
    """Linear layer on the class token of a vision transformer tuned by low-rank parts.

    Args:
        backbone: timm's name of a vision transformer with a class token.
        image_size_px: Side of the crop, a multiple of the patch.
        lora_rank: Rank of the learnt parts, at least 1.
        lora_alpha: They are scaled by alpha / rank.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown or has no class token, or a number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="dda",
        paper="Chen et al., Dual data alignment makes AI-generated image detector easier generalizable, NeurIPS 2025",
        year=2025,
        summary="DINOv2 tuned by low-rank parts on aligned reconstructions of real images",
        backbone="DINOv2 ViT-L/14",
        input="centre crop of 336 px, not resized",
        official_weights="https://github.com/roy-ch/Dual-Data-Alignment",
        licence="Apache-2.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_vit",
        "image_size_px": 96,
        "lora_rank": 2,
        "backbone_weights": None,
    }
    embedding_into = "head"

    def __init__(
        self,
        backbone: str = "vit_large_patch14_dinov2.lvd142m",
        image_size_px: int = 336,
        lora_rank: int = 8,
        lora_alpha: float = 1.0,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        network = create_backbone(backbone, backbone_weights).requires_grad_(False)
        if getattr(network, "cls_token", None) is None or network.num_prefix_tokens != 1:
            raise ConfigError(f"Expected a vision transformer with a class token and no registers, got {backbone}.")
        if image_size_px < 1 or image_size_px % network.patch_embed.patch_size[0]:
            raise ConfigError(
                f"Expected image_size_px to be a multiple of {network.patch_embed.patch_size[0]}, got {image_size_px}."
            )
        for block in network.blocks:
            block.attn.qkv = LoraLinear(block.attn.qkv, lora_rank, lora_alpha)
            block.attn.proj = LoraLinear(block.attn.proj, lora_rank, lora_alpha)
            block.mlp.fc1 = LoraLinear(block.mlp.fc1, lora_rank, lora_alpha)
            block.mlp.fc2 = LoraLinear(block.mlp.fc2, lora_rank, lora_alpha)
        self.preprocess = Preprocess((CenterCrop(image_size_px, image_size_px),))
        self.normalise = Normalise(CLIP_MEAN, CLIP_STD)
        self.backbone = network
        self.head = nn.Linear(network.embed_dim, 1)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' state dict, or one of ours; the token that masks patches in pre-training is not used."""
        named = {}
        for name, tensor in state.items():
            if name == "base_model.model.mask_token":
                continue
            for theirs, ours in _OFFICIAL:
                name = name.replace(theirs, ours)
            named[name] = tensor
        load_strict(self, named)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        patch_BDhw = self.backbone.patch_embed.proj(self.normalise(image_BCHW))
        token_BND = torch.cat(
            [self.backbone.cls_token.expand(image_BCHW.shape[0], -1, -1), patch_BDhw.flatten(2).mT], dim=1
        )
        token_BND = token_BND + interpolate_positions(self.backbone.pos_embed, patch_BDhw.shape[-1])
        token_BND = self.backbone.norm(self.backbone.blocks(token_BND))
        logit_B1: Tensor = self.head(token_BND[:, 0])
        return logit_B1.squeeze(1).float()


def interpolate_positions(position_1ND: Tensor, side: int) -> Tensor:
    """Return learnt positions for a grid of `side` x `side` patches, as the code of DINOv2 interpolates them.

    Args:
        position_1ND: That of the class token, then a square grid row by row.
        side: Patches along a side, at least 1.
    """
    stored_side = round((position_1ND.shape[1] - 1) ** 0.5)
    if side == stored_side:
        return position_1ND
    grid_1Dhw = position_1ND[:, 1:].mT.reshape(1, -1, stored_side, stored_side).float()
    # The offset keeps the floor of the output size right, and enters the positions: it has to be there.
    scale = (side + _POSITION_OFFSET) / stored_side
    grid_1Dhw = F.interpolate(grid_1Dhw, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([position_1ND[:, :1], grid_1Dhw.flatten(2).mT.to(position_1ND.dtype)], dim=1)
