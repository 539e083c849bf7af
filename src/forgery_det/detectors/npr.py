"""NPR: what is left of an image when each 2 x 2 block is compared with its first pixel.

    NPR(x) = x - up(down(x)),    down and up: nearest neighbour, factor 2
    z(x) = w . mean over positions of f(2/3 NPR(x)) + b

Generators end in up-sampling layers, which tie neighbouring pixels together; the residual shows those ties and little
of the content. The network is a ResNet-50 cut after its second stage, with a 3 x 3 first convolution.

Tan et al., "Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable Deepfake
Detection", CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.base import DetectorCard
from forgery_det.detectors.resnet_trunk import ResNetDetector, imagenet_normalisation
from forgery_det.transforms.preprocess import Preprocess, ResizeExact

_SCALE = 2.0 / 3.0


class NPR(ResNetDetector):
    """Truncated ResNet-50 on neighbouring pixel relationships.

    Args:
        image_size_px: The image is resized to this square, the aspect not kept; even.
        layers: Blocks in each stage.
        width: Channels of the stem.

    Raises:
        ConfigError: A size is below 1, or the side is odd.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="npr",
        paper=(
            "Tan et al., Rethinking the up-sampling operations in CNN-based generative network for generalizable "
            "deepfake detection, CVPR 2024"
        ),
        year=2024,
        summary="truncated ResNet-50 on the difference of each pixel from the first of its 2 x 2 block",
        backbone="ResNet-50, two stages",
        input="resized to 256 x 256 px",
        official_weights="https://github.com/chuangchuangtan/NPR-DeepfakeDetection",
        licence="none stated",
    )
    tiny: ClassVar[Mapping[str, Any]] = {"layers": (1, 1), "width": 4, "image_size_px": 64}

    def __init__(self, image_size_px: int = 256, layers: Sequence[int] = (3, 4), width: int = 64) -> None:
        super().__init__(layers, width, stem_kernel=3)
        if image_size_px % 2:
            raise ConfigError(f"Expected an even `image_size_px`, got {image_size_px}: pixels are compared in pairs.")
        self.fc1 = nn.Linear(self.n_features, 1)
        self.normalise = imagenet_normalisation()
        self.preprocess = Preprocess((ResizeExact(image_size_px, image_size_px, "bilinear"),))

    def network(self, x_BCHW: Tensor) -> Tensor:
        """Return `logit_B` for a normalised image of even sides."""
        feature_BC = self.trunk(neighbour_residual(x_BCHW) * _SCALE).mean(dim=(2, 3))
        logit_B1: Tensor = self.fc1(feature_BC)
        return logit_B1.squeeze(1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        return self.network(self.normalise(image_BCHW)).float()


def neighbour_residual(x_BCHW: Tensor) -> Tensor:
    """Return each pixel minus the top left pixel of its 2 x 2 block.

    Args:
        x_BCHW: Sides even.

    Example:
        >>> import torch
        >>> neighbour_residual(torch.tensor([[[[5.0, 6.0], [8.0, 5.0]]]])).tolist()
        [[[[0.0, 1.0], [3.0, 0.0]]]]
    """
    first_BCHW = x_BCHW[..., ::2, ::2].repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    return x_BCHW - first_BCHW
