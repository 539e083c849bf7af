"""What the training-free detectors share: nothing in them learns, and an embedding compared with a perturbed one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from forgery_det.detectors.backbones import create_backbone, normalisation
from forgery_det.detectors.base import Detector

DINOV2_L14 = "vit_large_patch14_dinov2.lvd142m"
"""Backbone of RIGID and of WaRPAD. timm resizes its position embeddings from 518 px with antialiasing, DINOv2's own
code without it, so features differ slightly from the papers'."""


class TrainingFree(Detector):
    """A detector in which nothing learns; it stays in evaluation mode whatever `train()` says."""

    def train(self, mode: bool = True) -> Self:
        """Note the mode; every part stays in evaluation mode."""
        super().train(False)
        self.training = mode
        return self


class PerturbedEmbedding(TrainingFree):
    """How well a frozen backbone's embedding survives a perturbation of the image.

    Args:
        backbone: timm's name of a network; its pooled output is the embedding (the class token of DINOv2).
        backbone_weights: `timm`, a path, `package`, or None for random ones; see `detectors.backbones`.
        image_size_px: Side of the square that the backbone sees.
    """

    backbone: Any  # timm's networks have no types

    def __init__(self, backbone: str, backbone_weights: str | Path | None, image_size_px: int) -> None:
        super().__init__()
        network: Any = create_backbone(backbone, backbone_weights, image_size_px=image_size_px)
        self.normalise = normalisation(network)
        self.backbone = network.requires_grad_(False)
        self.train()

    @torch.no_grad()
    def similarity(self, image_BCHW: Tensor, perturbed_BCHW: Tensor) -> Tensor:
        """Return `cosine_B`, float32 in [-1, 1], of the embeddings of two normalised images."""
        return F.cosine_similarity(self.backbone(image_BCHW).float(), self.backbone(perturbed_BCHW).float(), dim=-1)
