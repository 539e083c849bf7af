"""Co-Spy: a detector of meaning and a detector of pixel traces, fused on their logits.

    z(x) = w . [z_semantic(x), z_artefact(x)] + b
    z_semantic(x) = u . P cls(x) + c          (frozen CLIP, embedding not scaled)
    z_artefact(x) = v . mean f(2/3 NPR(x)) + d    (truncated ResNet-50 on the residual of `npr`)

Meaning survives recompression and resizing, pixel traces do not but are the finer evidence while they last; each branch
covers where the other fails. Each normalises for itself. The published variant of this network was trained on ProGAN;
that for Stable Diffusion has other branches (SigLIP, a diffusion autoencoder's residual) and is not built here.

Paper: Cheng et al., CO-SPY: Combining semantic and pixel features to detect synthetic images by AI, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.detectors._clip_vit import (
    CLIP_MEAN,
    CLIP_STD,
    ClipTower,
    clip_spec,
    fill_backbone,
    from_hugging_face,
)
from forgery_det.detectors.base import Detector, DetectorCard, Normalise
from forgery_det.detectors.npr import neighbour_residual
from forgery_det.detectors.resnet_trunk import add_stages, imagenet_normalisation, stage_channels
from forgery_det.detectors.weights import load_strict, read_weights
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeShort

_UNUSED = ("sem.clip.logit_scale", "art.artifact_encoder.fc1.weight", "art.artifact_encoder.fc1.bias")
_RESIDUAL_SCALE = 2 / 3


class CoSpy(Detector):
    """Linear layer on the logits of a semantic and of an artefact branch.

    Args:
        backbone: Name in `CLIP_BACKBONES`, of the semantic branch; frozen.
        layers: Blocks in each stage of the artefact branch.
        width: Channels of its stem.
        backbone_weights: Of the semantic branch: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="co_spy",
        paper="Cheng et al., CO-SPY: Combining semantic and pixel features to detect synthetic images by AI, CVPR 2025",
        year=2025,
        summary="frozen CLIP and a residual network on neighbouring pixels, fused on their logits",
        backbone="CLIP ViT-L/14 (OpenAI) and ResNet-50, two stages",
        input="short side 256 px (bilinear), centre crop of 224 px",
        official_weights="https://github.com/Megum1/CO-SPY (three files)",
        licence="MIT",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_clip_vit",
        "layers": (1, 1),
        "width": 8,
        "backbone_weights": None,
    }
    branch_logits_into = "fusion"

    def __init__(
        self,
        backbone: str = "clip_vit_l14",
        layers: Sequence[int] = (3, 4),
        width: int = 64,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        spec = clip_spec(backbone)
        self.preprocess = Preprocess(
            (ResizeShort(spec.image_px * 8 // 7, "bilinear"), CenterCrop(spec.image_px, spec.image_px))
        )
        self.normalise_semantic = Normalise(CLIP_MEAN, CLIP_STD)
        self.clip = ClipTower(spec)
        fill_backbone(self.clip, backbone_weights)
        self.clip.requires_grad_(False)
        self.semantic_head = nn.Linear(spec.embedding, 1)
        self.normalise_artefact = imagenet_normalisation()
        self.artefact = _ArtefactEncoder(layers, width)
        self.artefact_head = nn.Linear(self.artefact.n_features, 1)
        self.fusion = nn.Linear(2, 1)

    @classmethod
    def holds_whole_network(cls, state: Mapping[str, Tensor]) -> bool:
        """Tell whether the file has the semantic branch's image encoder too."""
        return any(name.startswith(("sem.clip.", "clip.")) for name in state)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of the authors' fused module, or one of ours; for the three files see `load_parts`.

        Without the image encoder in it, the one that is there stays.
        """
        named = {name: tensor for name, tensor in state.items() if name not in _UNUSED}
        named = from_hugging_face(named, "sem.clip.vision_model.", "clip.")
        if not self.holds_whole_network(state):
            named |= {name: tensor for name, tensor in self.state_dict().items() if name.startswith("clip.")}
        load_strict(self, {_own_name(name): tensor for name, tensor in named.items()})

    def load_parts(self, semantic: Path, artefact: Path, fusion: Path) -> None:
        """Load the three files that the authors release, on the image encoder that is there.

        Args:
            semantic: `semantic_weights.pth`, the linear layer of the semantic branch.
            artefact: `artifact_weights.pth`, the whole artefact branch.
            fusion: `fusion_weights.pth`, the linear layer on the two logits.

        Raises:
            WeightsError: A file is missing or does not fit.
        """
        parts = {"sem.": semantic, "art.": artefact, "": fusion}
        state = {
            f"{prefix}{name}": tensor for prefix, path in parts.items() for name, tensor in read_weights(path).items()
        }
        self.load_official(state)

    def branches(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B2`: of the semantic and of the artefact branch."""
        with torch.no_grad():
            embedding_BE = self.clip(self.normalise_semantic(image_BCHW))
        residual_BCHW = neighbour_residual(self.normalise_artefact(image_BCHW)) * _RESIDUAL_SCALE
        logits = (self.semantic_head(embedding_BE), self.artefact_head(self.artefact(residual_BCHW)))
        return torch.cat(logits, dim=1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        logit_B1: Tensor = self.fusion(self.branches(image_BCHW))
        return logit_B1.squeeze(1).float()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the frozen image encoder stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self


class _ArtefactEncoder(nn.Module):
    """The stem and first stages of a ResNet-50 whose first convolution is 3 x 3, then the mean over positions."""

    def __init__(self, layers: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = add_stages(self, layers, width, "bottleneck")
        self.n_features = stage_channels(width, len(layers) - 1, "bottleneck")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return `feature_BC`."""
        x_BCHW = F.max_pool2d(F.relu(self.bn1(self.conv1(x_BCHW))), kernel_size=3, stride=2, padding=1)
        for stage in self.stages:
            x_BCHW = self.get_submodule(stage)(x_BCHW)
        return x_BCHW.mean(dim=(2, 3))


_OFFICIAL = (
    ("sem.clip.visual_projection.", "clip.projection."),
    ("sem.fc.", "semantic_head."),
    ("art.artifact_encoder.", "artefact."),
    ("art.fc.", "artefact_head."),
    ("fc.", "fusion."),
)


def _own_name(name: str) -> str:
    for theirs, ours in _OFFICIAL:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
