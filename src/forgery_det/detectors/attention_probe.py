"""Learned attention over the patch tokens of a frozen backbone, and a linear layer on what it gathers.

    t_n = (x_n - m) / s                                     standardised token n of N
    a_kn = softmax over n of (q_k . t_n / sqrt(D))          query k of K
    z = b + sum over k of w_k . sum over n of a_kn t_n

A mean over positions dilutes a trace that lies in a few patches: an edited region, a face, one flat wall. Queries find
such patches. With K = 1 and q = 0 it is the linear probe on mean-pooled tokens. m and s are the mean and spread of
each channel over the tokens of the train split (set once by `fit_feature_scaling`, then frozen); only q, w and b learn:
2 K D + 1 numbers.

Queries attend to the tokens directly, without key and value projections, as in Psomas et al., "Attention, Please!
Revisiting Attentive Probing Through the Lens of Efficiency", ICLR 2026 (arXiv 2506.10178), where this kept the accuracy
of heavier attentive probes. Their value projection is left out here: before a single linear output it would only
factorise w. There is no official detector to compare with; the tests hold the equations above.

Token features are large: a cache of a ViT-B/16 at 224 px takes 600 KB an image.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.backbones import DEFAULT_BACKBONE, Geometry, create_backbone, geometry_of, normalisation
from forgery_det.detectors.base import DetectorCard, FrozenFeatures
from forgery_det.detectors.frozen_probe import choose_blocks
from forgery_det.detectors.weights import load_strict, without_prefix

_MIN_SPREAD = 1e-6
_HEAD = "head."
_CHUNK = 64
"""Images whose tokens are summed at once in float64."""


class AttentionProbe(FrozenFeatures):
    """Attention pooling over the patch tokens of a frozen timm backbone.

    Args:
        backbone: timm's name of a network.
        block: Block (of a transformer) or stage (of a convolutional network, whose positions are the tokens), counted
            from 0, negative from the end.
        n_queries: Learned queries.
        backbone_weights: `package`, `timm`, a path, or None for random ones; see `detectors.backbones`.
        image_size_px: Side of the square input; None is the backbone's own.
        geometry: `resize` or `crop`; see `backbones.geometry_of`.
        standardise: Whether `fit_feature_scaling` sets the head's fixed scaling.

    Raises:
        ConfigError: A name or number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="attention_probe",
        paper="after Psomas et al., Attention, please! Revisiting attentive probing, ICLR 2026",
        year=2026,
        summary="learned attention over the patch tokens of a frozen backbone",
        backbone=f"any of timm ({DEFAULT_BACKBONE})",
        input="short side 224 px, centre crop",
    )
    backbone: Any  # timm's networks have no types
    head: AttentionPool
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_vit",
        "backbone_weights": None,
        "image_size_px": 64,
        "n_queries": 2,
    }

    def __init__(
        self,
        backbone: str = DEFAULT_BACKBONE,
        block: int = -1,
        n_queries: int = 4,
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
        (self.block,) = choose_blocks((block,), len(network.feature_info))
        # Only networks of tokens have one final norm that suits every block.
        self._norm = "return_prefix_tokens" in inspect.signature(network.forward_intermediates).parameters
        network.prune_intermediate_layers([self.block], prune_norm=not self._norm, prune_head=True)
        self.backbone = network.requires_grad_(False)
        self.head = AttentionPool(network.feature_info[self.block]["num_chs"], n_queries, standardise)
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
        """Return `feature_BND`, float32: the patch tokens, without class and register tokens."""
        (map_BDHW,) = self.backbone.forward_intermediates(
            self.normalise(image_BCHW), indices=[self.block], norm=self._norm, stop_early=True, intermediates_only=True
        )
        feature_BND: Tensor = map_BDHW.flatten(2).transpose(1, 2).float().contiguous()
        return feature_BND

    def fit_feature_scaling(self, feature: Tensor) -> None:
        """Set the head's scaling from `feature_NTD` of the train split.

        Raises:
            ConfigError: The shape is wrong or there is no row.
        """
        self.head.fit(feature)

    def attention(self, image_BCHW: Tensor) -> Tensor:
        """Return `attention_BKN`: how much of its one unit each query gives to each patch, row by row."""
        return self.head.attention(self.head.scaled(self.features(image_BCHW)))


class AttentionPool(nn.Module):
    """Queries over standardised tokens, and a linear layer on what they gather.

    Args:
        n_features: Channels of a token.
        n_queries: Learned queries.
        standardise: Whether `fit` sets the scaling.

    Raises:
        ConfigError: There is no query.
    """

    mean_D: Tensor
    spread_D: Tensor

    def __init__(self, n_features: int, n_queries: int, standardise: bool) -> None:
        super().__init__()
        if n_queries < 1:
            raise ConfigError(f"Expected `n_queries` of at least 1, got {n_queries}.")
        self.standardise = standardise
        self.register_buffer("mean_D", torch.zeros(n_features))
        self.register_buffer("spread_D", torch.ones(n_features))
        # Equal queries would stay equal for ever; a fixed draw tells them apart, and training needs no seed.
        draw_KD = np.random.default_rng(0).standard_normal((n_queries, n_features)).astype(np.float32)
        self.query_KD = nn.Parameter(torch.from_numpy(0.1 * draw_KD))
        self.linear = nn.Linear(n_queries * n_features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, feature_BND: Tensor) -> Tensor:
        """Return `logit_B1`."""
        scaled_BND = self.scaled(feature_BND)
        gathered_BKD = self.attention(scaled_BND).to(scaled_BND.dtype) @ scaled_BND
        logit_B1: Tensor = self.linear(gathered_BKD.flatten(1))
        return logit_B1

    def scaled(self, feature_BND: Tensor) -> Tensor:
        """Return the standardised tokens, in the precision of the head."""
        scaled_BND = (feature_BND.float() - self.mean_D.float()) / self.spread_D.float()
        return scaled_BND.to(self.query_KD.dtype)

    def attention(self, scaled_BND: Tensor) -> Tensor:
        """Return `attention_BKN`, float32, which sums to one over the tokens."""
        size = self.query_KD.shape[1] ** 0.5
        attention_BKN: Tensor = (self.query_KD @ scaled_BND.transpose(1, 2) / size).float().softmax(dim=-1)
        return attention_BKN

    @torch.no_grad()
    def fit(self, feature_NTD: Tensor) -> None:
        """Set mean and spread from the tokens of all rows; a channel that never varies keeps spread 1."""
        if feature_NTD.ndim != 3 or feature_NTD.shape[2] != self.mean_D.numel() or not feature_NTD.numel():
            raise ConfigError(
                f"Expected features of shape (at least 1, tokens, {self.mean_D.numel()}), "
                f"got {tuple(feature_NTD.shape)}."
            )
        if not self.standardise:
            return
        n_tokens = feature_NTD.shape[0] * feature_NTD.shape[1]
        # In chunks: a table of tokens in float64 would double what is in memory.
        chunks = torch.split(feature_NTD, _CHUNK)
        mean_D = torch.stack([chunk.double().sum(dim=(0, 1)) for chunk in chunks]).sum(dim=0) / n_tokens
        square_D = torch.stack([(chunk.double() - mean_D).square().sum(dim=(0, 1)) for chunk in chunks]).sum(dim=0)
        spread_D = (square_D / n_tokens).sqrt()
        self.mean_D.copy_(mean_D)
        self.spread_D.copy_(torch.where(spread_D > _MIN_SPREAD, spread_D, 1.0))
