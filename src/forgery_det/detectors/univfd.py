"""UnivFD: a linear layer on CLIP's image embedding.

    z(x) = w . P cls(x) + b

The backbone never saw a forensic task, so it has no reason to look only for the traces of one generator; that is what
makes a linear boundary on its features carry over to others. The embedding is the projected class token, not scaled to
unit length, and images are cut, never resized.

Paper: Ojha et al., Towards universal fake image detectors that generalize across generative models, CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from forgery_det.detectors._clip_features import ClipFeatures
from forgery_det.detectors._clip_vit import clip_spec
from forgery_det.detectors.base import DetectorCard
from forgery_det.transforms.preprocess import CenterCrop, Preprocess


class UnivFD(ClipFeatures):
    """Linear layer on the projected class token of a frozen CLIP.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="univfd",
        paper="Ojha et al., Towards universal fake image detectors that generalize across generative models, CVPR 2023",
        year=2023,
        summary="linear layer on the image embedding of a frozen CLIP",
        backbone="CLIP ViT-L/14 (OpenAI)",
        input="centre crop of 224 px, not resized",
        official_weights="https://github.com/WisconsinAIVision/UniversalFakeDetect (head)",
        licence="MIT",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_clip_vit", "backbone_weights": None}
    official_clip = "model."
    official_head = "fc."

    def __init__(self, backbone: str = "clip_vit_l14", backbone_weights: str | Path | None = "timm") -> None:
        spec = clip_spec(backbone)
        super().__init__(spec, nn.Linear(spec.embedding, 1), backbone_weights, projected=True)
        self.preprocess = Preprocess((CenterCrop(spec.image_px, spec.image_px),))
