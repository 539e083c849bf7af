"""A linear head on pooled features of a frozen backbone: the simple baseline that is hard to beat.

    z(x) = w . (f(x) - m) / s + b,    f(x) = concat over blocks k of mean over positions of block_k(x)

m and s are the mean and spread of each feature over the train split (set once by `fit_feature_scaling`, then frozen),
so one learning rate and one weight decay suit features of all scales; only w and b learn, and the problem is convex.

Linear heads on the last block of a large frozen network generalise to generators that were not trained on (Ojha et al.,
"Towards Universal Fake Image Detectors that Generalize Across Generative Models", CVPR 2023); intermediate blocks add
to that (Koutlis & Papadopoulos, "Leveraging Representations from Intermediate Encoder-blocks for Synthetic Image
Detection", ECCV 2024). Hence the default: up to five blocks evenly spaced through the network, the last included. Early
blocks still see pixel statistics (noise, resampling, decoder traces), late blocks see content. That is every stage of a
common convolutional network (512 features of the default backbone), and five times the width of a transformer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors.backbones import DEFAULT_BACKBONE, Geometry, create_backbone, geometry_of, normalisation
from forgery_det.detectors.base import DetectorCard, FrozenFeatures
from forgery_det.detectors.weights import load_strict, without_prefix

Pool = Literal["mean", "cls"]

DEFAULT_BLOCKS = 5
"""Most blocks that are taken when none are named."""

_MIN_SPREAD = 1e-6
_HEAD = "head."


class FrozenProbe(FrozenFeatures):
    """Linear head on pooled features of a frozen timm backbone.

    Args:
        backbone: timm's name of a network.
        blocks: Blocks (of a transformer) or stages (of a convolutional network) whose features are used, counted from
            0, negative from the end; None takes up to five, evenly spaced, the last included.
        pool: `mean` over positions, or `cls`: the class token, where the network has one.
        backbone_weights: `package`, `timm`, a path, or None for random ones; see `detectors.backbones`.
        image_size_px: Side of the square input; None is the backbone's own (224 for the default).
        geometry: `resize` or `crop`; see `backbones.geometry_of`.
        standardise: Whether `fit_feature_scaling` sets the head's fixed scaling.

    Raises:
        ConfigError: A name or number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="frozen_probe",
        paper="after Ojha et al., CVPR 2023, and Koutlis & Papadopoulos, ECCV 2024",
        year=2023,
        summary="linear head on pooled features of a frozen backbone",
        backbone=f"any of timm ({DEFAULT_BACKBONE})",
        input="short side 224 px, centre crop",
    )
    backbone: Any  # timm's networks have no types
    head: ScaledLinear
    tiny: ClassVar[Mapping[str, Any]] = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        blocks: Sequence[int] | None = None,
        pool: Pool = "mean",
        backbone_weights: str | Path | None = "package",
        image_size_px: int | None = None,
        geometry: Geometry = "resize",
        standardise: bool = True,
    ) -> None:
        super().__init__()
        network: Any = create_backbone(backbone, backbone_weights, image_size_px=image_size_px)
        self.preprocess = geometry_of(network, geometry, image_size_px)
        self.normalise = normalisation(network)
        if not hasattr(network, "forward_intermediates"):
            raise ConfigError(f"Expected a backbone whose blocks timm can return, got {backbone}.")
        self.blocks = choose_blocks(blocks, len(network.feature_info))
        self._options = _forward_options(network, backbone, self.blocks, pool)
        network.prune_intermediate_layers(list(self.blocks), prune_norm=not self._options["norm"], prune_head=True)
        self.backbone = network.requires_grad_(False)
        channels = [network.feature_info[block]["num_chs"] for block in self.blocks]
        self.head = ScaledLinear(sum(channels), standardise)
        self.train()

    @classmethod
    def holds_whole_network(cls, state: Mapping[str, Tensor]) -> bool:
        """Tell whether the file has the backbone too; a file of the head alone goes on the backbone asked for."""
        return any(not name.startswith(_HEAD) for name in state)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load a whole state dict, or one of the head alone (keys that start with `head.`)."""
        if self.holds_whole_network(state):
            load_strict(self, state)
        else:
            load_strict(self.head, without_prefix(state, _HEAD))

    @torch.no_grad()
    def features(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BD`, float32, the blocks' pooled features side by side."""
        outputs = self.backbone.forward_intermediates(self.normalise(image_BCHW), **self._options)
        pooled = [self._pooled(output).float() for output in outputs]
        return torch.cat(pooled, dim=1)

    def fit_feature_scaling(self, feature: Tensor) -> None:
        """Set the head's scaling from `feature_ND` of the train split.

        Raises:
            ConfigError: The shape is wrong or there is no row.
        """
        self.head.fit(feature)

    def _pooled(self, output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        # Token networks give (feature map, prefix tokens) when asked for the tokens.
        if isinstance(output, tuple):
            return output[1][:, 0]
        # float32 first: a sum over thousands of positions in half precision loses digits.
        return output.float().mean(dim=(2, 3))


class ScaledLinear(nn.Module):
    """`w . (x - mean) / spread + b` with a fixed mean and spread; w and b start at zero, so training needs no seed."""

    mean_D: Tensor
    spread_D: Tensor

    def __init__(self, n_features: int, standardise: bool) -> None:
        super().__init__()
        self.standardise = standardise
        self.register_buffer("mean_D", torch.zeros(n_features))
        self.register_buffer("spread_D", torch.ones(n_features))
        self.linear = nn.Linear(n_features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """Return `logit_B1`."""
        scaled_BD = (feature_BD.float() - self.mean_D.float()) / self.spread_D.float()
        logit_B1: Tensor = self.linear(scaled_BD.to(self.linear.weight.dtype))
        return logit_B1

    @torch.no_grad()
    def fit(self, feature_ND: Tensor) -> None:
        """Set mean and spread from the rows; a feature that never varies keeps spread 1."""
        if feature_ND.ndim != 2 or feature_ND.shape[1] != self.mean_D.numel() or not len(feature_ND):
            raise ConfigError(
                f"Expected features of shape (at least 1, {self.mean_D.numel()}), got {tuple(feature_ND.shape)}."
            )
        if not self.standardise:
            return
        feature_ND = feature_ND.double()
        spread_D = feature_ND.std(dim=0, correction=0)
        self.mean_D.copy_(feature_ND.mean(dim=0))
        self.spread_D.copy_(torch.where(spread_D > _MIN_SPREAD, spread_D, 1.0))


def choose_blocks(blocks: Sequence[int] | None, n_blocks: int) -> tuple[int, ...]:
    """Return the block numbers, ascending, each in [0, n_blocks).

    Args:
        blocks: Wanted numbers, negative from the end; None takes up to `DEFAULT_BLOCKS`, evenly spaced.
        n_blocks: Blocks that the network has.

    Raises:
        ConfigError: A number is out of range, repeated, or there is none.

    Example:
        >>> choose_blocks(None, 12), choose_blocks(None, 4), choose_blocks((-1, 0), 12)
        ((1, 4, 6, 9, 11), (0, 1, 2, 3), (0, 11))
    """
    if blocks is None:
        n_taken = min(DEFAULT_BLOCKS, n_blocks)
        return tuple(round((k + 1) * n_blocks / n_taken) - 1 for k in range(n_taken))
    chosen = sorted(block + n_blocks if block < 0 else block for block in blocks)
    if not chosen or len(set(chosen)) != len(chosen) or chosen[0] < 0 or chosen[-1] >= n_blocks:
        raise ConfigError(
            f"Expected `blocks` to be different numbers in [{-n_blocks}, {n_blocks - 1}], got {tuple(blocks)}."
        )
    return tuple(chosen)


def _forward_options(network: Any, name: str, blocks: tuple[int, ...], pool: Pool) -> dict[str, Any]:
    """Return the keywords of timm's `forward_intermediates` for these blocks."""
    if pool not in ("mean", "cls"):
        raise ConfigError(f"Unknown pool {pool!r}: {did_you_mean(str(pool), ('mean', 'cls'))}")
    if pool == "cls" and getattr(network, "cls_token", None) is None:
        raise ConfigError(f"Expected a backbone with a class token for pool='cls', got {name}. Use pool='mean'.")
    has_tokens = "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters
    # The residual stream of a transformer has a few huge channels until its final norm is applied; stages of a
    # convolutional network have another width than its final norm.
    options = {"indices": list(blocks), "norm": has_tokens, "stop_early": True, "intermediates_only": True}
    return options | ({"return_prefix_tokens": True} if pool == "cls" else {})
