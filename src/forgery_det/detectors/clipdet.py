"""The CLIP detector of GRIP-UNINA: a linear layer on unit-length CLIP features.

    z(x) = w . f(x) / |f(x)| + b,    f(x) = ln_post(class token), not projected

A few images of one generator are enough to fit it, and it holds up under recompression better than detectors of
low-level traces. The authors use a backbone trained by open_clip on CommonPool, which has the exact GELU where OpenAI's
has QuickGELU; their script fuses the score with that of `dimd`.

Paper: Cozzolino et al., Raising the bar of AI-generated image detection with CLIP, CVPR workshops 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.detectors._clip_features import ClipFeatures
from forgery_det.detectors._clip_vit import clip_spec
from forgery_det.detectors.base import DetectorCard
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort


class ClipDet(ClipFeatures):
    """Linear layer on the normalised class token of a frozen CLIP.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        backbone_weights: Path of a file, `timm` (downloaded, where timm has them), or None for random ones. timm does
            not have the CommonPool weights of the paper; the file is that of open_clip, `ViT-L-14-CommonPool.XL`.

    Raises:
        ConfigError: The backbone is unknown, or timm has no weights of it.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="clipdet",
        paper="Cozzolino et al., Raising the bar of AI-generated image detection with CLIP, CVPR workshops 2024",
        year=2024,
        summary="linear layer on unit-length features of a frozen CLIP",
        backbone="CLIP ViT-L/14 (open_clip, CommonPool XL)",
        input="short side 224 px (bicubic), centre crop",
        official_weights="https://github.com/grip-unina/ClipBased-SyntheticImageDetection (head)",
        licence="Apache-2.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_clip_vit", "backbone_weights": None}
    official_head = "fc."
    official_text = False

    def __init__(self, backbone: str = "clip_vit_l14_commonpool", backbone_weights: str | Path | None = "timm") -> None:
        spec = clip_spec(backbone)
        super().__init__(spec, nn.Linear(spec.width, 1), backbone_weights)
        self.preprocess = Preprocess((ResizeShort(spec.image_px, "bicubic"), CenterCrop(spec.image_px, spec.image_px)))

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BD`, float32, of length 1."""
        return F.normalize(super().features(image_BCHW), dim=1)
