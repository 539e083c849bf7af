"""RIGID: the embedding of a generated image moves further when a little noise is added.

    z(x) = -cos(f(x), f(x + l n)),    n ~ N(0, 1) for each value of the normalised image, l = 0.05

f is a frozen network that never saw a forensic task. The official code draws new noise for every batch; here the noise
is one fixed draw (NumPy's `default_rng(seed)`), the same for every image, so a score depends on the image alone.

The logit lies in [-1, 1] and close to -1: it ranks, but a temperature alone does not make a probability of it. Put it
into an `ensemble`, whose fitted weights shift and scale it, or use operating points from `val`. The direction is not
safe either: at another noise level or with another backbone the order can turn over, so check it on `val`.

He et al., "RIGID: A Training-Free and Model-Agnostic Framework for Robust AI-Generated Image Detection", 2024 (arXiv
2405.20112). There are no reference numbers for this detector; the tests hold the equation above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._training_free import DINOV2_L14, PerturbedEmbedding
from forgery_det.detectors.base import DetectorCard
from forgery_det.transforms.preprocess import Preprocess, ResizeExact


class Rigid(PerturbedEmbedding):
    """Minus the similarity of an image's embedding to that of its noisy copy.

    Args:
        backbone: timm's name of a network.
        backbone_weights: `timm`, a path, `package`, or None for random ones; see `detectors.backbones`.
        noise: Standard deviation of the noise, in units of the normalised image; above 0.
        seed: Of the noise.
        image_size_px: Side of the square that the image is resized to.

    Raises:
        ConfigError: The backbone is unknown, or the noise is not above 0.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="rigid",
        paper="He et al., RIGID: A training-free and model-agnostic framework for robust AI-generated image detection, "
        "arXiv 2405.20112",
        year=2024,
        summary="how far the embedding of a frozen network moves under a little noise; nothing is trained",
        backbone="DINOv2 ViT-L/14, frozen",
        input="resized to 224 x 224 px",
    )
    noise_CHW: Tensor
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}

    def __init__(
        self,
        backbone: str = DINOV2_L14,
        backbone_weights: str | Path | None = "timm",
        noise: float = 0.05,
        seed: int = 0,
        image_size_px: int = 224,
    ) -> None:
        if not (math.isfinite(noise) and noise > 0):
            raise ConfigError(f"Expected `noise` to be a finite number above 0, got {noise}.")
        super().__init__(backbone, backbone_weights, image_size_px)
        self.preprocess = Preprocess((ResizeExact(image_size_px, image_size_px, "bilinear"),))
        draw_CHW = np.random.default_rng(seed).standard_normal((3, image_size_px, image_size_px)).astype(np.float32)
        self.register_buffer("noise_CHW", torch.from_numpy(noise * draw_CHW), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`, in [-1, 1]."""
        normalised_BCHW = self.normalise(image_BCHW)
        return -self.similarity(normalised_BCHW, normalised_BCHW + self.noise_CHW)
