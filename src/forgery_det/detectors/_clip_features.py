"""Base of the detectors that are a frozen CLIP image encoder and a head on its tokens.

What differs from one to the next is a handful of facts: which token is read, how images are cut, what the head is, and
under which names the authors' files keep them. Files come in two kinds. Most authors release the head alone, to be put
on OpenAI's public weights (`backbone_weights`); a state dict of the authors' whole module is accepted as well, with its
text encoder, which no logit depends on, left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from forgery_det.detectors._clip_vit import (
    CLIP_MEAN,
    CLIP_STD,
    ClipSpec,
    ClipTower,
    fill_backbone,
    from_openai,
    without_text_tower,
)
from forgery_det.detectors.base import FrozenFeatures, Normalise
from forgery_det.detectors.weights import load_strict, without_prefix


class ClipFeatures(FrozenFeatures):
    """Frozen CLIP image encoder and a head.

    Args:
        spec: Shape of the image encoder.
        head: Maps features to `logit_B1`.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.
        projected: Whether the head reads projected class tokens.
    """

    official_clip: ClassVar[str] = ""
    """What stands before `visual.` in the authors' whole state dict."""
    official_head: ClassVar[str] = ""
    """What stands before the head's names in the authors' whole state dict."""
    official_text: ClassVar[bool] = True
    """Whether the authors' whole state dict has CLIP's text encoder."""

    def __init__(
        self, spec: ClipSpec, head: nn.Module, backbone_weights: str | Path | None, *, projected: bool = False
    ) -> None:
        super().__init__()
        self.normalise = Normalise(CLIP_MEAN, CLIP_STD)
        self.clip = ClipTower(spec, projected=projected)
        fill_backbone(self.clip, backbone_weights)
        self.clip.requires_grad_(False)
        self.head = head
        self.train()

    @classmethod
    def holds_whole_network(cls, state: Mapping[str, Tensor]) -> bool:
        """Tell whether the file has the image encoder too, under the authors' names or ours."""
        return any(name.startswith((f"{cls.official_clip}visual.", "clip.")) for name in state)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' head, or a state dict of the whole network under the authors' names or ours."""
        if not self.holds_whole_network(state):
            load_strict(self.head, without_prefix(self._under_head(state), "head."))
            return
        named = without_text_tower(state, self.official_clip) if self.official_text else state
        named = from_openai(named, f"{self.official_clip}visual.", "clip.")
        if self.clip.projection is None:
            named.pop("clip.projection.weight", None)
        load_strict(self, self._under_head(named))

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BD`, float32: the class token, projected where the tower holds the projection."""
        feature_BD: Tensor = self.clip(self.normalise(image_BCHW)).float()
        return feature_BD

    def head_logit(self, feature: Tensor) -> Tensor:
        """Return `logit_B`, float32, from what `features` returned."""
        return super().head_logit(feature.to(next(self.head.parameters()).dtype))

    def _under_head(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put whatever is not ours by name under `head.`, the authors' prefix taken off."""
        own = self.state_dict().keys()
        return {
            name if name in own or name.startswith("clip.") else f"head.{name.removeprefix(self.official_head)}": tensor
            for name, tensor in state.items()
        }
