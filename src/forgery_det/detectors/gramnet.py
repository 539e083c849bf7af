"""Gram-Net: a ResNet-18 that also sees the global texture of each of its scales.

    G_k(x) = F_k F_k^T / (C H W),    F_k = relu(bn(conv(map k))) as a C x HW matrix, C = 32
    g_k = mean over positions of two strided convolutions on G_k
    z(x) = head([mean over positions of layer4, s g_i, s g_0 .. s g_4]),    s one learnt factor

A Gram matrix forgets where texture is and keeps which feature maps occur together. Six are taken: from the image
itself, from the stem before and after pooling, and from the first three stages.

The official files expect what OpenCV's reader gives: blue, green, red in 0..255, resized to 512 x 512 without
antialiasing, not normalised. Class 0 of the two is generated and class 1 is real, the reverse of the usual order.

Liu et al., "Global Texture Enhancement for Fake Face Detection in the Wild", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forgery_det.detectors.base import DetectorCard
from forgery_det.detectors.resnet_trunk import ResNetDetector, stage_channels
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_opencv import ResizeOpenCV

_GRAM_CHANNELS = 32
_GRAM_FEATURES = 32

# Official names of the six texture branches: the convolution before the Gram matrix, and the two after it.
_BRANCHES = (
    ("conv_interi_0", "gi_fc1", "gi_fc2"),
    ("conv_inter0_0", "g0_fc1", "g0_fc2"),
    ("conv_inter1_0", "g_fc1r", "g_fc2r"),
    ("conv_inter2_0", "g2_fc1", "g2_fc2"),
    ("conv_inter3_0", "g3_fc1", "g3_fc2"),
    ("conv_inter4_0", "g4_fc1", "g4_fc2"),
)


class GramNet(ResNetDetector):
    """ResNet-18 with six Gram-matrix branches.

    Args:
        image_size_px: The image is resized to this square, the aspect not kept.
        backbone_weights: `timm` (ImageNet, as in the paper), a path, or None for random ones.
        layers: Blocks in each of the four stages.
        width: Channels of the stem.
        n_hidden: Width of the head.

    Raises:
        ConfigError: A size is below 1.
        WeightsError: The backbone's weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="gramnet",
        paper="Liu et al., Global texture enhancement for fake face detection in the wild, CVPR 2020",
        year=2020,
        summary="ResNet-18 with Gram matrices of six scales",
        backbone="ResNet-18",
        input="resized to 512 x 512 px (OpenCV)",
        official_weights="https://github.com/liuzhengzhe/Global_Texture_Enhancement_for_Fake_Face_Detection_in_the-Wild",
        licence="none stated",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"layers": (1, 1, 1, 1), "width": 4, "image_size_px": 64, "n_hidden": 8}

    def __init__(
        self,
        image_size_px: int = 512,
        backbone_weights: str | Path | None = None,
        layers: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        n_hidden: int = 512,
    ) -> None:
        super().__init__(layers, width, "basic")
        self.preprocess = Preprocess((ResizeOpenCV(image_size_px, image_size_px),))
        self.load_trunk("resnet18.tv_in1k", backbone_weights)
        self.scale = _Scale()
        stages = [stage_channels(width, index, "basic") for index in range(3)]
        for (before, first, second), n_in in zip(_BRANCHES, (3, width, width, *stages), strict=True):
            self.add_module(before, _conv_bn_relu(n_in, _GRAM_CHANNELS, stride=1))
            self.add_module(first, _conv_bn_relu(1, 16, stride=2))
            self.add_module(second, _conv_bn_relu(16, _GRAM_FEATURES, stride=2))
        self.fcnewr = nn.Sequential(
            nn.Linear(self.n_features + _GRAM_FEATURES * len(_BRANCHES), n_hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(n_hidden, 2),
            nn.LogSoftmax(dim=1),
        )

    def network(self, x_BCHW: Tensor) -> Tensor:
        """Return log-probabilities `logit_B2`, generated and real, for BGR in 0..255."""
        stem = self.stem(x_BCHW)
        maps = [x_BCHW, stem, self.pool(stem)]
        for stage in self.stages:
            maps.append(self.get_submodule(stage)(maps[-1]))
        features = [maps[-1].mean(dim=(2, 3))]
        for names, feature_BCHW in zip(_BRANCHES, maps, strict=False):
            before, first, second = (self.get_submodule(name) for name in names)
            texture = second(first(gram(before(feature_BCHW))[:, None]))
            features.append(self.scale(texture.mean(dim=(2, 3))))
        logit_B2: Tensor = self.fcnewr(torch.cat(features, dim=1))
        return logit_B2

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`, generated minus real."""
        bgr_BCHW = (image_BCHW * 255.0).flip(1).to(self.conv1.weight.dtype)
        logit_B2 = self.network(bgr_BCHW).float()
        return logit_B2[:, 0] - logit_B2[:, 1]


class _Scale(nn.Module):
    """One learnt factor, common to the texture branches."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def gram(feature_BCHW: Tensor) -> Tensor:
    """Return the Gram matrix of the feature maps over their number of values, `gram_BCC`.

    Example:
        >>> gram(torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]]])).tolist()
        [[[0.5, 0.5], [0.5, 1.0]]]
    """
    flat_BCN = feature_BCHW.flatten(2).float()
    gram_BCC = flat_BCN @ flat_BCN.transpose(1, 2) / flat_BCN[0].numel()
    return gram_BCC.to(feature_BCHW.dtype)


def _conv_bn_relu(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU())
