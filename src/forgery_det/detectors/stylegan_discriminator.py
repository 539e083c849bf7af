"""The discriminator of StyleGAN: the frozen network whose gradients LGrad looks at.

From 256 x 256 down to 4 x 4: at each resolution a 3 x 3 convolution, then a blur and a 3 x 3 convolution that halves
the side (down to 64 px as one strided convolution, below that as a convolution and a mean over 2 x 2). Weights are kept
at unit variance and scaled by sqrt(2 / fan-in) when used. Parameter names are those of the PyTorch conversion of the
published weights; its input layers for the smaller resolutions serve progressive training only and are not built.

The layer that measures how alike the images of a batch are sees each image by itself here, so that a score does not
depend on what else is scored.

Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError

_LAST_PX = 4
_FUSED_FROM_PX = 128
_SLOPE = 0.2
_LONE_IMAGE_STD = 1e-4
"""What the minibatch standard deviation layer gives for a batch of one: sqrt(0 + 1e-8)."""


class StyleGANDiscriminator(nn.Module):
    """Score of RGB images in [-1, 1], `score_B1`.

    Args:
        side_px: Side of the images, a power of two of at least 8.
        base: Channels at a resolution are `base / resolution`, at most `max_channels`.
        max_channels: Upper bound of the channels.

    Raises:
        ConfigError: The side is no power of two.
    """

    def __init__(self, side_px: int = 256, base: int = 16384, max_channels: int = 512) -> None:
        super().__init__()
        if side_px < 2 * _LAST_PX or side_px & (side_px - 1):
            raise ConfigError(f"Expected a power of two of at least 8 as side of the discriminator, got {side_px}.")

        def channels(resolution: int) -> int:
            return max(1, min(base // resolution, max_channels))

        self.input0 = _Scaled(channels(side_px), 3, 1, 1)
        n_layers, resolution = 0, side_px
        while resolution > _LAST_PX:
            n_here, n_next = channels(resolution), channels(resolution // 2)
            self.add_module(f"layer{n_layers}", _Scaled(n_here, n_here, 3, 3))
            self.add_module(f"layer{n_layers + 1}", _Scaled(n_next, n_here, 3, 3))
            n_layers, resolution = n_layers + 2, resolution // 2
        n_last, n_dense = channels(_LAST_PX), channels(_LAST_PX // 2)
        self.add_module(f"layer{n_layers}", _Scaled(n_last, n_last + 1, 3, 3))
        self.add_module(f"layer{n_layers + 1}", _Scaled(n_dense, n_last * _LAST_PX**2))
        self.add_module(f"layer{n_layers + 2}", _Scaled(1, n_dense, gain=1.0))
        self.side_px = side_px

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `score_B1`."""
        x_BCHW = _rectified(F.conv2d(image_BCHW, *self.input0()))
        index, resolution = 0, self.side_px
        while resolution > _LAST_PX:
            x_BCHW = _rectified(F.conv2d(x_BCHW, *self._layer(index), padding=1))
            x_BCHW = _rectified(_halve(_blur(x_BCHW), *self._layer(index + 1), fused=resolution >= _FUSED_FROM_PX))
            index, resolution = index + 2, resolution // 2
        lone_B1HW = torch.full_like(x_BCHW[:, :1], _LONE_IMAGE_STD)
        x_BCHW = _rectified(F.conv2d(torch.cat((x_BCHW, lone_B1HW), dim=1), *self._layer(index), padding=1))
        x_BD = _rectified(F.linear(x_BCHW.flatten(1), *self._layer(index + 1)))
        return F.linear(x_BD, *self._layer(index + 2))

    def _layer(self, index: int) -> tuple[Tensor, Tensor]:
        weight, bias = self.get_submodule(f"layer{index}")()
        return weight, bias


class _Scaled(nn.Module):
    """Weight and bias of a layer; the weight is scaled by gain / sqrt(fan-in) when asked for."""

    def __init__(self, *shape: int, gain: float = 2**0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.scale = gain / self.weight[0].numel() ** 0.5

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.weight * self.scale, self.bias


def without_unused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published tensors that this network has: no smaller input layers, no fixed blur kernels."""
    return {
        key: tensor
        for key, tensor in state.items()
        if key != "lod"
        and not key.endswith(".blur.kernel")
        and (not key.startswith("input") or key.startswith("input0."))
    }


def _rectified(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE)


def _blur(x_BCHW: Tensor) -> Tensor:
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x_BCHW.dtype, device=x_BCHW.device) / 4
    n_channels = x_BCHW.shape[1]
    kernel = torch.outer(line, line).expand(n_channels, 1, 3, 3)
    return F.conv2d(x_BCHW, kernel, padding=1, groups=n_channels)


def _halve(x_BCHW: Tensor, weight: Tensor, bias: Tensor, *, fused: bool) -> Tensor:
    if not fused:
        return F.avg_pool2d(F.conv2d(x_BCHW, weight, bias, padding=1), 2)
    padded = F.pad(weight, (1, 1, 1, 1))
    spread = (padded[..., 1:, 1:] + padded[..., :-1, 1:] + padded[..., 1:, :-1] + padded[..., :-1, :-1]) / 4
    return F.conv2d(x_BCHW, spread, bias, stride=2, padding=1)
