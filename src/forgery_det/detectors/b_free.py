"""B-Free: a DINOv2 with registers that reads the whole image through five windows of its token grid.

    T = patch tokens of the whole image;    z(x) = mean over five 36 x 36 windows W of T of (w . ln(class token(W)) + b)

Trained on real images and on their own reconstructions by a diffusion model, so that content, size and format cannot
tell the classes apart. The image is neither resized nor cut: it is embedded whole, and the windows (centre and four
corners) are cut from the grid of tokens; a grid with fewer than 36 tokens along a side is repeated along it.

The authors score one image at a time; here a batch of equally large images gives the same numbers.

Paper: Guillaro et al., A bias-free training paradigm for more general AI-generated image detection, CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.resnet_trunk import imagenet_normalisation
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_geometry import PadTo

_VIEWS = 5


class BFree(Detector):
    """Mean logit of five windows of the token grid; everything learns.

    Images with a side shorter than a patch are mirrored up to one patch.

    Args:
        backbone: timm's name of a vision transformer.
        image_size_px: Side of the windows in pixels, a multiple of the patch.
        backbone_weights: `timm` (downloaded), a path, or None for random ones.

    Raises:
        ConfigError: The backbone is unknown, or the size is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="b_free",
        paper="Guillaro et al., A bias-free training paradigm for more general AI-generated image detection, CVPR 2025",
        year=2025,
        summary="DINOv2 with registers on five windows of the whole image's tokens",
        backbone="DINOv2 ViT-B/14 with registers",
        input="the whole image; five windows of 504 px",
        official_weights="https://github.com/grip-unina/B-Free",
        licence="GRIP-UNINA, non-profit use",
        not_exported="but to pt2: its windows depend on the size",
    )
    export_refusals: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("onnx", "onnx_int8", "openvino", "triton"),
        "its windows are cut at places that follow from the image's size by arithmetic that torch's ONNX exporter does "
        "not translate. Export it to pt2, or score with the checkpoint.",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_vit", "image_size_px": 64, "backbone_weights": None}

    def __init__(
        self,
        backbone: str = "vit_base_patch14_reg4_dinov2.lvd142m",
        image_size_px: int = 504,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        self.model = create_backbone(backbone, backbone_weights, n_outputs=1, image_size_px=image_size_px)
        if not hasattr(self.model, "patch_embed") or not hasattr(self.model, "_pos_embed"):
            raise ConfigError(f"Expected a vision transformer of timm, got {backbone}.")
        self.normalise = imagenet_normalisation()
        self.side = self.model.patch_embed.grid_size[0]
        self.preprocess = Preprocess((PadTo(self.model.patch_embed.patch_size[0], pad="reflect"),))

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' state dict, which has timm's names; or one of ours."""
        super().load_official({f"model.{name.removeprefix('model.')}": tensor for name, tensor in state.items()})

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        patch_BDhw = self.model.patch_embed.proj(self.normalise(image_BCHW))
        window_BDhw = torch.cat(windows(patch_BDhw, self.side))
        # timm adds positions to a map where a network takes any size, and to a sequence elsewhere.
        patches = window_BDhw.permute(0, 2, 3, 1) if self.model.dynamic_img_size else window_BDhw.flatten(2).mT
        token_BND = self.model.norm_pre(self.model._pos_embed(patches))
        token_BND = self.model.norm(self.model.blocks(token_BND))
        logit_B1: Tensor = self.model.forward_head(token_BND)
        return logit_B1.reshape(_VIEWS, image_BCHW.shape[0]).float().mean(dim=0)


def windows(grid_BDhw: Tensor, side: int) -> list[Tensor]:
    """Cut the centre and the four corners of a grid, counter-clockwise from the top left.

    Args:
        grid_BDhw: A side shorter than `side` is repeated up to it.
        side: Of the windows.

    Example:
        >>> [window.item() for window in windows(torch.arange(9.0).reshape(1, 1, 3, 3), 1)]
        [4.0, 0.0, 6.0, 8.0, 2.0]
    """
    height, width = (max(length, side) for length in grid_BDhw.shape[2:])
    rows = torch.arange(height, device=grid_BDhw.device) % grid_BDhw.shape[2]
    columns = torch.arange(width, device=grid_BDhw.device) % grid_BDhw.shape[3]
    grid_BDhw = grid_BDhw[:, :, rows][:, :, :, columns]
    bottom, right = height - side, width - side
    corners = ((bottom // 2, right // 2), (0, 0), (bottom, 0), (bottom, right), (0, right))
    return [grid_BDhw[:, :, top : top + side, left : left + side] for top, left in corners]
