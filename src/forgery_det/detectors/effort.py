"""Effort: CLIP whose attention weights learn only in the directions that it uses least.

    W = W_main + U S V         (per query, key, value and output projection; U S V: the last r singular components)
    z(x) = w . ln_post(class token) + b

Fine-tuning all of a network on few generators squeezes its features into few dimensions, and it forgets what natural
images look like. Here the leading singular components stay, and one component a weight learns in the space orthogonal
to them. The published training adds two losses, which keep the factors orthogonal and the weights' norm unchanged
(`bce_orthogonal`).

Authors' checkpoints also store the factors of W_main (`U_r`, `S_r`, `V_r`), which only those losses read and which can
be computed from W_main; they are accepted and not kept. Two classes there; ours is generated minus real.

Paper: Yan et al., Orthogonal subspace decomposition for generalizable AI-generated image detection, ICML 2025.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from forgery_det.detectors._adapters import ResidualLinear
from forgery_det.detectors._clip_vit import (
    CLIP_MEAN,
    CLIP_STD,
    ClipTower,
    clip_spec,
    fill_backbone,
    from_hugging_face,
)
from forgery_det.detectors._heads import one_logit_head
from forgery_det.detectors.base import Detector, DetectorCard, Normalise
from forgery_det.detectors.residuals import ResidualFactors
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_opencv import ResizeOpenCV

_KEPT_FACTORS = re.compile(r"backbone\.encoder\.layers\.\d+\.self_attn\.(q|k|v|out)_proj\.[SUV]_r")
_FACTORS = {"U_residual": "u_POr", "S_residual": "s_Pr", "V_residual": "v_PrI"}


class Effort(Detector):
    """Linear layer on the class token of a CLIP whose attention learns in a residual subspace.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        rank: Singular components of each weight that learn, at least 1.
        backbone_weights: `timm` (downloaded), a path, or None for random ones. Taking given weights apart takes about
            a minute for ViT-L/14.

    Raises:
        ConfigError: The backbone is unknown, or the rank is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="effort",
        paper="Yan et al., Orthogonal subspace decomposition for generalizable AI-generated image detection, ICML 2025",
        year=2025,
        summary="CLIP whose attention weights learn only in their last singular components",
        backbone="CLIP ViT-L/14 (OpenAI)",
        input="resized to 224 x 224 px (OpenCV bilinear, aspect not kept)",
        official_weights="https://github.com/YZY-stack/Effort-AIGI-Detection",
        licence="CC BY-NC 4.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_clip_vit", "backbone_weights": None}
    embedding_into = "head"

    def __init__(
        self, backbone: str = "clip_vit_l14", rank: int = 1, backbone_weights: str | Path | None = "timm"
    ) -> None:
        super().__init__()
        spec = clip_spec(backbone)
        self.preprocess = Preprocess((ResizeOpenCV(spec.image_px, spec.image_px),))
        self.normalise = Normalise(CLIP_MEAN, CLIP_STD)
        self.clip = ClipTower(spec, projected=False)
        fill_backbone(self.clip, backbone_weights)
        self.clip.requires_grad_(False)
        for block in self.clip.trunk.blocks:
            block.attn.qkv = ResidualLinear(block.attn.qkv, rank, parts=3)
            block.attn.proj = ResidualLinear(block.attn.proj, rank)
            if backbone_weights is not None:
                block.attn.qkv.split()
                block.attn.proj.split()
        self.head = nn.Linear(spec.width, 1)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' state dict, or one of ours."""
        named = {name: tensor for name, tensor in state.items() if not _KEPT_FACTORS.fullmatch(name)}
        # Factors get an axis of parts first, so that those of query, key and value join along it.
        named = {
            name: tensor[None] if name.rpartition(".")[2] in _FACTORS else tensor for name, tensor in named.items()
        }
        named = from_hugging_face(named, "backbone.", "clip.")
        named = {_own_factor(name): tensor for name, tensor in named.items()}
        load_strict(self, one_logit_head(named, "head"))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        logit_B1: Tensor = self.head(self.clip(self.normalise(image_BCHW)))
        return logit_B1.squeeze(1).float()

    def residual_factors(self) -> Iterator[ResidualFactors]:
        """Yield the factors of each weight that learns in a residual."""
        for module in self.modules():
            if isinstance(module, ResidualLinear):
                yield module.factors()


def _own_factor(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_FACTORS[last]}" if last in _FACTORS else name
