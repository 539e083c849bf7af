"""LPIPS: a distance between images in the feature maps of VGG-16, under the official key names.

    d_l(x, y) = mean over positions of sum over channels c of w_lc (u_lc(x) - u_lc(y))^2,    l = 1 .. 5

u_l is the map after the last rectifier of VGG's stage l, each position scaled to unit length; w_l are learned and not
negative. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.base import Normalise
from forgery_det.detectors.weights import load_strict

VGG16_WIDTHS = (64, 128, 256, 512, 512)
SMALLEST_SIDE_PX = 16
"""Below it, the four poolings of VGG-16 leave nothing."""

_DEPTHS = (2, 2, 3, 3, 3)
_EPS = 1e-10  # the official constant; it decides at positions where all channels are zero

# The authors scale images in [-1, 1] by these, not by the constants of torchvision.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Layer-wise distances of two images.

    Args:
        widths: Channels of VGG's five stages.

    Raises:
        ConfigError: There are not five stages.
    """

    def __init__(self, widths: Sequence[int] = VGG16_WIDTHS) -> None:
        super().__init__()
        if len(widths) != len(_DEPTHS):
            raise ConfigError(f"Expected the widths of the {len(_DEPTHS)} stages of VGG-16, got {tuple(widths)}.")
        self.normalise = Normalise(_SHIFT, _SCALE)
        self.net = nn.Module()
        index, n_in = 0, 3
        for stage, (width, depth) in enumerate(zip(widths, _DEPTHS, strict=True)):
            slice_, index = _stage(n_in, width, depth, index)
            self.net.add_module(f"slice{stage + 1}", slice_)
            self.add_module(f"lin{stage}", _ChannelWeights(width))
            n_in = width

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """Return `distance_B6`, float32: the sum over layers brought to the image's size, then the five layers.

        Args:
            first_BCHW: In [0, 1]; sides of at least `SMALLEST_SIDE_PX`.
            second_BCHW: As the first.
        """
        maps = self.maps(first_BCHW, second_BCHW)
        side = first_BCHW.shape[-2:]
        full = [F.interpolate(map_B1HW, side, mode="bilinear", align_corners=False) for map_B1HW in maps]
        return torch.stack([value.mean(dim=(1, 2, 3)) for value in (torch.stack(full).sum(dim=0), *maps)], dim=1)

    def maps(self, first_BCHW: Tensor, second_BCHW: Tensor) -> list[Tensor]:
        """Return the five maps of distances, `map_B1HW` at each layer's own size, float32."""
        first_BCHW, second_BCHW = self.normalise(2 * first_BCHW - 1), self.normalise(2 * second_BCHW - 1)
        distances = []
        for stage in range(len(_DEPTHS)):
            slice_: nn.Module = getattr(self.net, f"slice{stage + 1}")
            weights: nn.Module = getattr(self, f"lin{stage}")
            first_BCHW, second_BCHW = slice_(first_BCHW), slice_(second_BCHW)
            distances.append(weights((_unit(first_BCHW) - _unit(second_BCHW)).square()))
        return distances


def load_lpips(lpips: LPIPS, state: Mapping[str, Tensor], where: str = "") -> None:
    """Load the state dict of the official LPIPS module, or files that together hold it.

    The channel weights may stand under `lin0.` and, again, under `lins.0.`, whose value holds as in the official code;
    the fixed scaling may be present; VGG-16 may have torchvision's names (`features.0.weight`), its classifier is left.

    Args:
        lpips: Filled.
        state: Names to tensors.
        where: Named in errors.

    Raises:
        WeightsError: Keys are missing or unexpected, or shapes differ.
    """
    own = {key.rsplit(".", 2)[1]: key for key in lpips.state_dict() if key.startswith("net.")}
    renamed: dict[str, Tensor] = {}
    for key, value in sorted(state.items(), key=lambda item: item[0].startswith("lins.")):
        if key.startswith(("scaling_layer.", "classifier.")):
            continue
        torchvision = re.fullmatch(r"features\.(\d+)\.(weight|bias)", key)
        if torchvision and torchvision[1] in own:
            renamed[f"{own[torchvision[1]].rsplit('.', 1)[0]}.{torchvision[2]}"] = value
        else:
            renamed[re.sub(r"^lins\.(\d)\.", r"lin\1.", key)] = value
    load_strict(lpips, renamed, where)


class _ChannelWeights(nn.Module):
    """A weighted sum over channels, under the official name `model.1.weight`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        mix = nn.Conv2d(width, 1, 1, bias=False)
        # A distance is not negative; published weights replace these.
        nn.init.constant_(mix.weight, 1.0)
        self.model = nn.Sequential(nn.Identity(), mix)

    def forward(self, square_BCHW: Tensor) -> Tensor:
        weighted_B1HW: Tensor = self.model(square_BCHW.to(next(self.parameters()).dtype))
        return weighted_B1HW.float()


def _stage(n_in: int, width: int, depth: int, index: int) -> tuple[nn.Sequential, int]:
    """Return a stage of VGG-16 whose layers have the numbers they have in the whole network, and the next number."""
    stage = nn.Sequential()
    if index:
        stage.add_module(str(index), nn.MaxPool2d(2))
        index += 1
    for layer in range(depth):
        stage.add_module(str(index), nn.Conv2d(n_in if layer == 0 else width, width, 3, padding=1))
        stage.add_module(str(index + 1), nn.ReLU())
        index += 2
    return stage, index


def _unit(map_BCHW: Tensor) -> Tensor:
    map_BCHW = map_BCHW.float()
    return map_BCHW / (map_BCHW.square().sum(dim=1, keepdim=True).sqrt() + _EPS)
