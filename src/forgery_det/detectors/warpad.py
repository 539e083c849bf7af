"""WaRPAD: the embedding of a generated image moves further when its high frequencies are amplified.

    h(p) = p - mean of p over blocks of 4 x 4 px            what two levels of the Haar wavelet leave without their
                                                            lowest band
    z(x) = -mean over patches p of x of cos(f(p), f(p + a h(p))),    a = 0.1

The image is resized to 896 x 896 px and cut into 16 patches of 224 px: networks that were trained to see crops of a
picture as the same picture are steady for real images, less so for generated ones. Zeroing the lowest Haar band and
transforming back equals subtracting block means, so no wavelet transform is needed; a test holds the two together.

The logit lies in [-1, 1]; what `rigid` says of its use as a score and of its direction holds here too.

Choi et al., "Training-free Detection of AI-generated Images via Cropping Robustness", NeurIPS 2025 (arXiv 2511.14030).
Sizes, levels and strength are those of the authors' script for GenImage. There are no reference numbers for this
detector; the tests hold the equations above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._training_free import DINOV2_L14, PerturbedEmbedding
from forgery_det.detectors.base import DetectorCard
from forgery_det.transforms.preprocess import Preprocess, ResizeExact


class WaRPAD(PerturbedEmbedding):
    """Minus the similarity of patches' embeddings to those of the patches with amplified high frequencies.

    Args:
        backbone: timm's name of a network.
        backbone_weights: `timm`, a path, `package`, or None for random ones; see `detectors.backbones`.
        strength: Share of the high frequencies that is added; above 0.
        levels: Levels of the Haar wavelet; bands above the lowest count as high.
        patch_px: Side of a patch, the side that the backbone sees; a multiple of 2 to the power of `levels`.
        grid: Patches along each side of the image.

    Raises:
        ConfigError: The backbone is unknown, or a number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="warpad",
        paper="Choi et al., Training-free detection of AI-generated images via cropping robustness, NeurIPS 2025",
        year=2025,
        summary="how far embeddings of patches move when high frequencies are amplified; nothing is trained",
        backbone="DINOv2 ViT-L/14, frozen",
        input="resized to 896 x 896 px, 16 patches of 224 px",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_resnet",
        "backbone_weights": None,
        "patch_px": 32,
        "grid": 2,
    }

    def __init__(
        self,
        backbone: str = DINOV2_L14,
        backbone_weights: str | Path | None = "timm",
        strength: float = 0.1,
        levels: int = 2,
        patch_px: int = 224,
        grid: int = 4,
    ) -> None:
        if not (math.isfinite(strength) and strength > 0):
            raise ConfigError(f"Expected `strength` to be a finite number above 0, got {strength}.")
        if min(levels, grid, patch_px) < 1 or patch_px % 2**levels:
            raise ConfigError(
                "Expected `levels` and `grid` of at least 1 and `patch_px` to be a multiple of 2 to the power of "
                f"`levels`, got levels={levels}, grid={grid}, patch_px={patch_px}."
            )
        super().__init__(backbone, backbone_weights, patch_px)
        self.strength, self.levels, self.patch_px = strength, levels, patch_px
        self.preprocess = Preprocess((ResizeExact(grid * patch_px, grid * patch_px, "bicubic"),))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`, in [-1, 1]."""
        if torch.compiler.is_exporting():
            # A graph has no loop over a batch of unknown length: all patches are one batch.
            image_BCHW = self.normalise(image_BCHW)
            patch_NCHW = batch_patches(image_BCHW, self.patch_px)
            return -self._similarities(patch_NCHW).reshape(image_BCHW.shape[0], -1).mean(dim=1)
        # One image at a time: its patches are a batch already.
        return -torch.stack([self._steadiness(image_CHW) for image_CHW in self.normalise(image_BCHW)])

    def _steadiness(self, image_CHW: Tensor) -> Tensor:
        return self._similarities(patches(image_CHW, self.patch_px)).mean()

    def _similarities(self, patch_NCHW: Tensor) -> Tensor:
        perturbed_NCHW = patch_NCHW + self.strength * high_frequencies(patch_NCHW, self.levels)
        return self.similarity(patch_NCHW, perturbed_NCHW)


def patches(image_CHW: Tensor, side_px: int) -> Tensor:
    """Return the whole patches of an image, row by row, as `patch_NCHW`.

    Example:
        >>> patches(torch.zeros(3, 64, 96), 32).shape
        torch.Size([6, 3, 32, 32])
    """
    return batch_patches(image_CHW[None], side_px)


def batch_patches(image_BCHW: Tensor, side_px: int) -> Tensor:
    """Return the whole patches of several images, image by image and row by row, as `patch_NCHW`.

    Example:
        >>> batch_patches(torch.zeros(2, 3, 64, 96), 32).shape
        torch.Size([12, 3, 32, 32])
    """
    grid_BCYXHW = image_BCHW.unfold(2, side_px, side_px).unfold(3, side_px, side_px)
    return grid_BCYXHW.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def high_frequencies(image_BCHW: Tensor, levels: int) -> Tensor:
    """Return the image without the lowest band of a Haar wavelet of `levels` levels.

    Args:
        image_BCHW: Sides are multiples of 2 to the power of `levels`.
        levels: Of the wavelet.

    Example:
        >>> high_frequencies(torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]), 1)
        tensor([[[[-3., -1.],
                  [ 1.,  3.]]]])
    """
    block = 2**levels
    mean_BCYX = F.avg_pool2d(image_BCHW.float(), block)
    smooth_BCHW = mean_BCYX.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)
    return (image_BCHW.float() - smooth_BCHW).to(image_BCHW.dtype)
