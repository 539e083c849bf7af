"""C2P-CLIP: a linear layer on CLIP's image embedding after low-rank tuning with category prompts.

    z(x) = w . e(x) / |e(x)| + b,    e(x) = P cls(x)

While it is trained, captions that end in a prompt common to a category pull the two classes apart in the space of text;
only low-rank parts of query, key and value learn. The release has those parts merged into the weights and holds no text
encoder, so what remains is an image encoder whose embedding is scaled to unit length before a linear layer. Here the
low-rank parts start as nothing beside whatever weights are loaded.

Paper: Tan et al., C2P-CLIP: Injecting category common prompt in CLIP to enhance generalization in deepfake detection,
AAAI 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.detectors._adapters import LoraLinear
from forgery_det.detectors._clip_vit import (
    CLIP_MEAN,
    CLIP_STD,
    ClipTower,
    clip_spec,
    fill_backbone,
    from_hugging_face,
)
from forgery_det.detectors.base import Detector, DetectorCard, Normalise
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort

_OFFICIAL = {
    "model.visual_projection.weight": "clip.projection.weight",
    "model.fc.weight": "head.weight",
    "model.fc.bias": "head.bias",
}


class C2PClip(Detector):
    """Linear layer on the unit-length embedding of a CLIP that is tuned by low-rank parts.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        lora_rank: Rank of the learnt parts of query, key and value, at least 1.
        lora_alpha: They are scaled by alpha / rank.
        lora_dropout: Probability in [0, 1).
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown, or a number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="c2p_clip",
        paper="Tan et al., C2P-CLIP: Injecting category common prompt in CLIP to enhance generalization in deepfake "
        "detection, AAAI 2025",
        year=2025,
        summary="linear layer on the unit-length embedding of a CLIP tuned by low-rank parts",
        backbone="CLIP ViT-L/14 (OpenAI)",
        input="short side 224 px (bilinear), centre crop",
        official_weights="https://github.com/chuangchuangtan/C2P-CLIP-DeepfakeDetection",
        licence="none stated",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_clip_vit", "lora_rank": 2, "backbone_weights": None}
    embedding_into = "head"

    def __init__(
        self,
        backbone: str = "clip_vit_l14",
        lora_rank: int = 6,
        lora_alpha: float = 6.0,
        lora_dropout: float = 0.0,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        spec = clip_spec(backbone)
        self.preprocess = Preprocess((ResizeShort(spec.image_px, "bilinear"), CenterCrop(spec.image_px, spec.image_px)))
        self.normalise = Normalise(CLIP_MEAN, CLIP_STD)
        self.clip = ClipTower(spec)
        fill_backbone(self.clip, backbone_weights)
        self.clip.requires_grad_(False)
        for block in self.clip.trunk.blocks:
            block.attn.qkv = LoraLinear(block.attn.qkv, lora_rank, lora_alpha, lora_dropout, parts=3)
        self.head = nn.Linear(spec.embedding, 1)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the release, whose low-rank parts are merged: they start anew as nothing; or a state dict of ours."""
        named = from_hugging_face(state, "model.vision_model.", "clip.")
        named = {_OFFICIAL.get(name, name): tensor for name, tensor in named.items()}
        if not any(".lora_" in name for name in named):
            named = {name.replace(".attn.qkv.", ".attn.qkv.base."): tensor for name, tensor in named.items()}
            named |= {name: tensor for name, tensor in self.state_dict().items() if ".lora_" in name}
        load_strict(self, named)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        embedding_BE = self.clip(self.normalise(image_BCHW))
        logit_B1: Tensor = self.head(F.normalize(embedding_BE, dim=1))
        return logit_B1.squeeze(1).float()
