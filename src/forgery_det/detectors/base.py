"""The `Detector` contract: `image_BCHW -> logit_B`, higher = generated.

A detector is a plain `nn.Module`: no Lightning, no loss, no labels. It carries its own `Preprocess` (geometry on uint8)
and normalises inside `forward`, so that whatever is exported or served holds the whole method. Input is float32 RGB in
[0, 1]; output is float32 whatever the precision inside.

Three habits make one detector work everywhere:
- A detector that starts from published backbone weights takes them from a keyword called `backbone_weights`, and None
  means random ones: a checkpoint that holds the whole network is then loaded without a download.
- All keywords of the constructor are plain values (numbers, texts, booleans, None, and tuples or dictionaries of them),
  so that a checkpoint can carry them.
- `tiny` names the keywords of its smallest instance, random and offline, for the conformance suite.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import ImageArray, Preprocess
from forgery_det.transforms.tensors import to_tensor

__all__ = ["Detector", "DetectorCard", "FrozenFeatures", "Normalise", "to_tensor"]


@dataclass(frozen=True, slots=True)
class DetectorCard:
    """What a reader must know of a detector before trusting it.

    Args:
        name: Registry name.
        paper: Citation, or what the method is when it has none.
        year: Year of publication.
        summary: One sentence: what it looks at.
        backbone: The network it stands on.
        input: What it sees of an image, for instance `short side 224 px, centre crop`.
        official_weights: Where the authors publish a checkpoint; empty when they do not.
        licence: Licence of the official weights, or `none stated`; empty without official weights.
        not_exported: When it cannot become a bundle, in a few words; empty where it always can.
    """

    name: str
    paper: str
    year: int
    summary: str
    backbone: str = ""
    input: str = ""
    official_weights: str = ""
    licence: str = ""
    not_exported: str = ""


class Detector(nn.Module, ABC):
    """Base of all detectors.

    Subclasses set `card`, `tiny` and `preprocess`, and define `forward(image_BCHW) -> logit_B`. A detector whose
    preprocessing makes V views takes `image_BVCHW`. Parameters that must not learn have `requires_grad=False`: which
    parameters learn is part of the detector.
    """

    card: ClassVar[DetectorCard]
    tiny: ClassVar[Mapping[str, Any]]
    preprocess: Preprocess
    arguments: Mapping[str, Any] | None = None
    """Keywords it was built with, defaults included; set by `create_detector`, written into checkpoints."""
    embedding_into: ClassVar[str | None] = None
    """Name of the module whose input, `embedding_BD`, contrastive losses act on; None where it cannot learn."""
    branch_logits_into: ClassVar[str | None] = None
    """Name of the module whose input, `logit_BK`, are logits of branches that could each answer alone."""
    export_refusals: ClassVar[Mapping[str, str]] = {}
    """Export format -> why it cannot be made and what to do instead; the key `all` stands for every format."""

    @classmethod
    def holds_whole_network(cls, state: Mapping[str, Tensor]) -> bool:  # noqa: ARG003 - for subclasses
        """Tell whether a weights file fills every parameter, so that `backbone_weights` need not be fetched first."""
        return True

    @classmethod
    def settings_from(cls, state: Mapping[str, Tensor]) -> Mapping[str, Any]:  # noqa: ARG003 - for subclasses
        """Return the settings that a weights file tells by its names and shapes; those that a caller names go first.

        Authors release one method in several sizes: a file of any of them then loads by the detector's name alone.
        """
        return {}

    @abstractmethod
    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`, float32, for float32 RGB in [0, 1] after `preprocess`."""

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of the file that the method's authors released; by default the keys are ours.

        Raises:
            WeightsError: Keys are missing or unexpected, or shapes differ; the text lists the first of each.
        """
        load_strict(self, state)

    def export_refusal(self, format_name: str) -> str | None:
        """Return why this detector cannot be exported to a format; None where nothing is known against it."""
        return self.export_refusals.get(format_name, self.export_refusals.get("all"))

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def device(self) -> torch.device:
        """Where the detector's tensors are; a detector without tensors counts as on the CPU."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    @torch.no_grad()
    def logit(self, image_HWC: ImageArray) -> float:
        """Return the logit of one decoded image: preprocess and forward, in evaluation mode.

        Args:
            image_HWC: uint8 RGB of any size.

        Raises:
            ConfigError: The array is not a uint8 RGB image.
        """
        was_training = self.training
        self.eval()
        try:
            image_BCHW = to_tensor(self.preprocess(image_HWC))[None].to(self.device)
            return float(self(image_BCHW)[0])
        finally:
            self.train(was_training)


class FrozenFeatures(Detector):
    """A detector that is a frozen feature extractor and a small head: `head_logit(features(image))`.

    Training may compute `features` once, keep them, and train the head alone; the numbers are the same because the
    extractor stays in evaluation mode whatever `train()` says. Everything that learns, or that `fit_feature_scaling`
    sets, lies in `head`.
    """

    head: nn.Module

    @abstractmethod
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BD` (or `feature_BND`), float32, without gradient."""

    def head_logit(self, feature: Tensor) -> Tensor:
        """Return `logit_B`, float32, from what `features` returned."""
        logit_B1: Tensor = self.head(feature)
        return logit_B1.squeeze(-1).float()

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        return self.head_logit(self.features(image_BCHW))

    def fit_feature_scaling(self, feature: Tensor) -> None:
        """Set what the head holds of the features' location and spread, from the features of the train split.

        Called once, before the head is trained, with `feature_ND` (or `feature_NTD`); a head without scaling ignores
        it.
        """

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the extractor stays in evaluation mode (BatchNorm, dropout)."""
        super().train(False)
        self.training = mode
        self.head.train(mode)
        return self


class Normalise(nn.Module):
    """`(image - mean) / std` per channel: computed in float32, returned in the precision of the module.

    The constants are not part of the state dict, so that official checkpoints fit.
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean_C11", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std_C11", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the normalised image."""
        normalised_BCHW = (image_BCHW.float() - self.mean_C11.float()) / self.std_C11.float()
        return normalised_BCHW.to(self.mean_C11.dtype)
