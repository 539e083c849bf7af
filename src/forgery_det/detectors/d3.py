"""D3: attention between an image and the same image with its patches shuffled.

    v = [cls(shuffle(x)), cls(x)]      (2 x D, not projected)
    z(x) = w . flatten(softmax(Q v (K v)^T / sqrt(D)) V v) + b

Shuffling destroys the content and keeps what lies inside a patch, so the difference between the two views is a view of
its own. The softmax runs over the queries, not over the keys as usual: the published network was trained so.

The authors draw a new permutation in every forward pass, at test time too, so their scores are random. Here one
permutation is fixed by `shuffle_seed`: the view at patch j shows patch p[j], p = default_rng(seed).permutation.

Paper: Yang et al., D3: Scaling up deepfake detection by learning from discrepancy, CVPR 2025.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from forgery_det.detectors._clip_features import ClipFeatures
from forgery_det.detectors._clip_vit import clip_spec
from forgery_det.detectors.base import DetectorCard
from forgery_det.transforms.preprocess import CenterCrop, Preprocess


class D3(ClipFeatures):
    """Attention over the class tokens of the shuffled and the original image, from a frozen CLIP.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        shuffle_seed: Seed of the permutation.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="d3",
        paper="Yang et al., D3: Scaling up deepfake detection by learning from discrepancy, CVPR 2025",
        year=2025,
        summary="attention between an image and its patch-shuffled copy on a frozen CLIP",
        backbone="CLIP ViT-L/14 (OpenAI)",
        input="centre crop of 224 px, not resized",
        official_weights="https://github.com/BigAandSmallq/D3 (head)",
        licence="none stated",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_clip_vit", "backbone_weights": None}
    official_clip = "model."
    official_head = "attention_head."
    order_N: Tensor

    def __init__(
        self,
        backbone: str = "clip_vit_l14",
        shuffle_seed: int = 9000,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        spec = clip_spec(backbone)
        super().__init__(spec, ViewAttention(spec.width), backbone_weights)
        self.preprocess = Preprocess((CenterCrop(spec.image_px, spec.image_px),))
        order_N = np.random.default_rng(shuffle_seed).permutation((spec.image_px // spec.patch_px) ** 2)
        self.register_buffer("order_N", torch.from_numpy(order_N), persistent=False)

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BND`, float32, N = 2: the shuffled view, then the original."""
        image_BCHW = self.normalise(image_BCHW)
        views = (shuffle_patches(image_BCHW, self.order_N, self.clip.spec.patch_px), image_BCHW)
        return torch.stack([self.clip(view_BCHW) for view_BCHW in views], dim=1).float()


class ViewAttention(nn.Module):
    """One attention head over the views, then a linear layer on all of them; named as the authors name it."""

    def __init__(self, width: int, n_views: int = 2) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.fc = nn.Linear(n_views * width, 1)

    def forward(self, feature_BND: Tensor) -> Tensor:
        """Return `logit_B1`."""
        score_BNN = self.query(feature_BND) @ self.key(feature_BND).mT / math.sqrt(feature_BND.shape[-1])
        mixed_BND = score_BNN.softmax(dim=1) @ self.value(feature_BND)
        logit_B1: Tensor = self.fc(mixed_BND.flatten(1))
        return logit_B1


def shuffle_patches(image_BCHW: Tensor, order_N: Tensor, patch_px: int) -> Tensor:
    """Put patch `order_N[j]` at place j; places are counted row by row.

    Args:
        image_BCHW: Sides are multiples of `patch_px`.
        order_N: A permutation of the places.
        patch_px: Side of a patch.

    Example:
        >>> shuffle_patches(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([3, 0, 1, 2]), 1).flatten().tolist()
        [3.0, 0.0, 1.0, 2.0]
    """
    batch, channels, height, width = image_BCHW.shape
    rows, columns = height // patch_px, width // patch_px
    grid = image_BCHW.reshape(batch, channels, rows, patch_px, columns, patch_px).transpose(3, 4)
    patch_BCNpp = grid.flatten(2, 3)[:, :, order_N]
    shuffled = patch_BCNpp.reshape(batch, channels, rows, columns, patch_px, patch_px).transpose(3, 4)
    return shuffled.reshape(image_BCHW.shape)
