"""Fine-tune any timm network with one output: the plain supervised baseline.

    z(x) = g(x),    g a network of timm whose last layer is replaced by one output

Every method that claims to generalise should first beat this with the same data and augmentation: a fine-tuned
ResNet-50 was the detector of Wang et al., "CNN-generated images are surprisingly easy to spot... for now" (CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors.backbones import DEFAULT_BACKBONE, Geometry, create_backbone, geometry_of, normalisation
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.weights import load_strict

Freeze = Literal["none", "backbone"]

_PREFIX = "backbone."


class TimmClassifier(Detector):
    """A timm network with one output.

    Args:
        backbone: timm's name of a network.
        backbone_weights: `package`, `timm`, a path, or None for random ones; see `detectors.backbones`.
        freeze: `none`: everything learns. `backbone`: only the new last layer learns, the rest stays in evaluation
            mode.
        image_size_px: Side of the square input; None is the network's own (224 for the default).
        geometry: `resize` or `crop`; see `backbones.geometry_of`.

    Raises:
        ConfigError: A name or number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="timm_classifier",
        paper="plain fine-tuning, after Wang et al., CVPR 2020",
        year=2020,
        summary="a timm network fine-tuned with one output",
        backbone=f"any of timm ({DEFAULT_BACKBONE})",
        input="short side 224 px, centre crop",
    )
    backbone: Any  # timm's networks have no types
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        backbone_weights: str | Path | None = "package",
        freeze: Freeze = "none",
        image_size_px: int | None = None,
        geometry: Geometry = "resize",
    ) -> None:
        super().__init__()
        if freeze not in ("none", "backbone"):
            raise ConfigError(f"Unknown freeze {freeze!r}: {did_you_mean(str(freeze), ('none', 'backbone'))}")
        self.backbone = create_backbone(backbone, backbone_weights, n_outputs=1, image_size_px=image_size_px)
        self.preprocess = geometry_of(self.backbone, geometry, image_size_px)
        self.normalise = normalisation(self.backbone)
        self.frozen = freeze == "backbone"
        if self.frozen:
            self.backbone.requires_grad_(False)
            self.backbone.get_classifier().requires_grad_(True)
        self.train()

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load our names, or timm's own names of a network with one output."""
        if not any(name.startswith(_PREFIX) for name in state):
            state = {_PREFIX + name: tensor for name, tensor in state.items()}
        load_strict(self, state)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        logit_B1: Tensor = self.backbone(self.normalise(image_BCHW))
        return logit_B1.squeeze(-1).float()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen backbone stays in evaluation mode (BatchNorm, dropout)."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self
