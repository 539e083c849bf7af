"""RINE: class tokens from inside all of CLIP's blocks, weighted by learnt importance.

    h_l = class token after the second layer norm of block l
    z(x) = head(q2(sum over l of softmax_l(alpha)_l * q1(h_l)))

Early blocks still hold low-level traces that the last one has given up; q1 and q2 are small networks shared by all
blocks, and alpha weighs every dimension of every block. The token is taken after the norm that stands before the MLP,
not at the block's output. The published training adds a contrastive loss on the output of q2 (`bce_contrastive`).

Paper: Koutlis and Papadopoulos, Leveraging representations from intermediate encoder-blocks for synthetic image
detection, ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._clip_features import ClipFeatures
from forgery_det.detectors._clip_vit import clip_spec
from forgery_det.detectors.base import DetectorCard
from forgery_det.transforms.preprocess import CenterCrop, Preprocess


class Rine(ClipFeatures):
    """Weighted class tokens of all blocks of a frozen CLIP.

    The authors release four heads, named after the classes trained on: 1 (`n_layers=4, dim=1024`), 2 (`n_layers=4,
    dim=128`), 4 (`n_layers=2, dim=1024`, the default here) and latent diffusion (`n_layers=4, dim=1024`). A file tells
    its size.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        n_layers: Linear layers in each of q1 and q2, at least 1.
        dim: Their width, at least 1.
        dropout: Probability in [0, 1).
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown, or a number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="rine",
        paper="Koutlis and Papadopoulos, Leveraging representations from intermediate encoder-blocks for synthetic "
        "image detection, ECCV 2024",
        year=2024,
        summary="class tokens of all blocks of a frozen CLIP, weighted by learnt importance",
        backbone="CLIP ViT-L/14 (OpenAI)",
        input="centre crop of 224 px, not resized",
        official_weights="https://github.com/mever-team/rine (head)",
        licence="Apache-2.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_clip_vit", "dim": 16, "backbone_weights": None}
    embedding_into = "head.head"
    official_clip = "clip."

    def __init__(
        self,
        backbone: str = "clip_vit_l14",
        n_layers: int = 2,
        dim: int = 1024,
        dropout: float = 0.5,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        if n_layers < 1 or dim < 1:
            raise ConfigError(f"Expected n_layers and dim of at least 1, got {n_layers} and {dim}.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"Expected dropout in [0, 1), got {dropout}.")
        spec = clip_spec(backbone)
        super().__init__(spec, RineHead(spec.depth, spec.width, n_layers, dim, dropout), backbone_weights)
        self.preprocess = Preprocess((CenterCrop(spec.image_px, spec.image_px),))

    @classmethod
    def settings_from(cls, state: Mapping[str, Tensor]) -> Mapping[str, Any]:
        """Return the size of the head in one of the four released files."""
        alpha = state.get("alpha")
        if alpha is None or alpha.ndim != 3:
            return {}
        n_layers = sum(name.startswith("proj1.") and name.endswith(".weight") for name in state)
        return {"n_layers": max(n_layers, 1), "dim": alpha.shape[2]}

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BND`, float32: one class token a block."""
        return torch.stack([*self.clip.inner_class_tokens(self.normalise(image_BCHW))], dim=1).float()


class RineHead(nn.Module):
    """Project, weigh, project, classify; named as the authors name it."""

    def __init__(self, n_blocks: int, width: int, n_layers: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(1, n_blocks, dim))
        self.proj1 = _projection(width, dim, n_layers, dropout)
        self.proj2 = _projection(dim, dim, n_layers, dropout)
        self.head = nn.Sequential(
            *(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(dim, 1),
        )

    def embedding(self, feature_BND: Tensor) -> Tensor:
        """Return `embedding_BD`, on which the contrastive loss acts."""
        weighted_BND = torch.softmax(self.alpha, dim=1) * self.proj1(feature_BND)
        embedding_BD: Tensor = self.proj2(weighted_BND.sum(dim=1))
        return embedding_BD

    def forward(self, feature_BND: Tensor) -> Tensor:
        """Return `logit_B1`."""
        logit_B1: Tensor = self.head(self.embedding(feature_BND))
        return logit_B1


def _projection(width: int, dim: int, n_layers: int, dropout: float) -> nn.Sequential:
    layers = [[nn.Linear(width if k == 0 else dim, dim), nn.ReLU(), nn.Dropout(dropout)] for k in range(n_layers)]
    return nn.Sequential(nn.Dropout(dropout), *chain.from_iterable(layers))
