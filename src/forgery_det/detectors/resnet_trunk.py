"""The residual network behind most convolutional detectors, with the stem that each of them changes.

Forensic detectors differ less in their blocks than in how soon they throw pixels away: the strides of the first
convolution and of the pooling decide whether traces at the scale of single pixels survive. Both are therefore settings
here. Names of parameters are those of torchvision's ResNet, which the official checkpoints use.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck, downsample_conv
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.base import Detector, Normalise
from forgery_det.detectors.weights import load_strict
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, Step
from forgery_det.transforms.steps_geometry import LimitSide

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

IMAGENET_RESNET50 = "resnet50.tv_in1k"
"""timm's name of the ImageNet weights from which the published ResNet-50 detectors start."""

Block = Literal["basic", "bottleneck"]

_BLOCKS: Mapping[str, Any] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResNetDetector(Detector):
    """A detector that is, or contains, a residual network: `conv1, bn1, pool, layer1 .. layerN`.

    The parts lie directly in the detector, so that its keys are the official ones.

    Args:
        layers: Blocks in each stage; each stage but the first halves the resolution and doubles the width.
        width: Channels of the stem and of the first stage's blocks.
        block: `bottleneck` (ResNet-50 and deeper) or `basic` (ResNet-18 and 34).
        stem_kernel: Side of the first convolution, odd.
        stem_stride: Stride of the first convolution.
        pool_stride: Stride of the 3 x 3 max-pooling after it.

    Raises:
        ConfigError: A size is below 1.
    """

    def __init__(
        self,
        layers: Sequence[int],
        width: int,
        block: Block = "bottleneck",
        *,
        stem_kernel: int = 7,
        stem_stride: int = 2,
        pool_stride: int = 2,
    ) -> None:
        super().__init__()
        if not layers or min(layers) < 1 or width < 1:
            raise ConfigError(f"Expected `layers` and `width` of at least 1, got {tuple(layers)} and {width}.")
        self.conv1 = nn.Conv2d(3, width, stem_kernel, stem_stride, padding=stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool_stride = pool_stride
        self.stages = add_stages(self, layers, width, block)
        self.n_features = stage_channels(width, len(layers) - 1, block)

    def stem(self, x_BCHW: Tensor) -> Tensor:
        """Return what the first convolution makes of a normalised image, before pooling."""
        return F.relu(self.bn1(self.conv1(x_BCHW)))

    def pool(self, x_BCHW: Tensor) -> Tensor:
        """Return the stem's output after max-pooling."""
        return F.max_pool2d(x_BCHW, kernel_size=3, stride=self.pool_stride, padding=1)

    def trunk(self, x_BCHW: Tensor) -> Tensor:
        """Return the last stage's map `feature_BCHW` for a normalised image."""
        x_BCHW = self.pool(self.stem(x_BCHW))
        for stage in self.stages:
            x_BCHW = self.get_submodule(stage)(x_BCHW)
        return x_BCHW

    def load_trunk(self, backbone: str, weights: str | Path | None) -> None:
        """Fill the trunk from a timm network with the same shapes; None leaves it random.

        Raises:
            WeightsError: The weights cannot be had or do not fit.
        """
        if weights is None:
            return
        trunk = create_backbone(backbone, weights).state_dict()
        rest = {key: tensor for key, tensor in self.state_dict().items() if key not in trunk and key.startswith("fc")}
        load_strict(self, {**trunk, **rest}, str(weights))


def imagenet_normalisation() -> Normalise:
    """Return the normalisation of torchvision's ImageNet networks."""
    return Normalise(IMAGENET_MEAN, IMAGENET_STD)


def any_size(crop_px: int | None, max_side_px: int) -> Preprocess:
    """Return the geometry of a detector that resizes nothing: a centre crop, or only a bound on the size."""
    step: Step = LimitSide(max_side_px) if crop_px is None else CenterCrop(crop_px, crop_px)
    return Preprocess((step,))


def add_stages(module: nn.Module, layers: Sequence[int], width: int, block: Block) -> tuple[str, ...]:
    """Add `layer1 .. layerN` to a module and return their names; convolutions start from He's initialisation."""
    block_class = _BLOCKS[block]
    names = []
    n_in = width
    for index, n_blocks in enumerate(layers):
        n_out = stage_channels(width, index, block)
        stride = 1 if index == 0 else 2
        shortcut = downsample_conv(n_in, n_out, 1, stride) if stride != 1 or n_in != n_out else None
        first = block_class(n_in, width * 2**index, stride, shortcut)
        rest = [block_class(n_out, width * 2**index) for _ in range(n_blocks - 1)]
        names.append(f"layer{index + 1}")
        module.add_module(names[-1], nn.Sequential(first, *rest))
        n_in = n_out
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return tuple(names)


def stage_channels(width: int, index: int, block: Block) -> int:
    """Return the channels that a stage gives.

    Example:
        >>> stage_channels(64, 3, "bottleneck"), stage_channels(64, 3, "basic")
        (2048, 512)
    """
    channels: int = width * 2**index * _BLOCKS[block].expansion
    return channels
