"""Linear layers whose published weight stays and beside which a low-rank part learns.

`LoraLinear`: y = W x + c + (alpha / r) B A x, with A and B of rank r (Hu et al., LoRA: low-rank adaptation of large
language models, ICLR 2022). B starts at zero, so the layer starts as the published one.

`ResidualLinear`: y = (W_main + U S V) x + c, where U S V are the last r singular components of the published weight and
W_main the others (Yan et al., Orthogonal subspace decomposition for generalizable AI-generated image detection, ICML
2025). Only U, S and V learn: what the network knows of natural images sits in W_main and stays.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.residuals import ResidualFactors


class LoraLinear(nn.Module):
    """A frozen linear layer and a learnt low-rank one beside it.

    Args:
        base: The layer; it is frozen.
        rank: Rank of the learnt part, at least 1.
        alpha: The learnt part is scaled by alpha / rank.
        dropout: Probability, in [0, 1), on the input of the learnt part.
        parts: Equal parts of the output that have low-rank factors of their own (3 for joined query, key and value).

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float = 1.0, dropout: float = 0.0, parts: int = 1) -> None:
        super().__init__()
        if rank < 1 or not 0 <= dropout < 1:
            raise ConfigError(f"Expected a rank of at least 1 and dropout in [0, 1), got {rank} and {dropout}.")
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.parts = parts
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(torch.empty(parts * rank, base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the layer's output; the last axis is the features'."""
        inner = F.linear(self.dropout(feature), self.lora_a)
        if self.parts == 1:
            update = F.linear(inner, self.lora_b)
        else:
            inner_parts = inner.reshape(*inner.shape[:-1], self.parts, -1)
            lora_b_Por = self.lora_b.reshape(self.parts, -1, self.lora_b.shape[1])
            update = torch.einsum("...pr,por->...po", inner_parts, lora_b_Por).flatten(-2)
        output: Tensor = self.base(feature) + self.scale * update
        return output


class ResidualLinear(nn.Module):
    """A frozen main weight and a learnt residual of low rank, from the singular values of a linear layer.

    Args:
        linear: The layer that is taken apart; its bias stays and is frozen.
        rank: Singular components that learn, at least 1.
        parts: Equal parts of the output that are taken apart each by itself (3 for joined query, key and value).
    """

    def __init__(self, linear: nn.Linear, rank: int = 1, parts: int = 1) -> None:
        super().__init__()
        if rank < 1 or rank > min(linear.in_features, linear.out_features // parts):
            raise ConfigError(f"Expected a rank from 1 to the smaller side of the weight, got {rank}.")
        out_features = linear.out_features // parts
        self.weight_main = nn.Parameter(linear.weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
        # A small residual with orthogonal factors; `split` takes it from the weight instead.
        self.u_POr = nn.Parameter(nn.init.orthogonal_(torch.empty(out_features, rank)).repeat(parts, 1, 1))
        self.s_Pr = nn.Parameter(torch.full((parts, rank), 1e-3))
        self.v_PrI = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, linear.in_features)).repeat(parts, 1, 1))

    @torch.no_grad()
    def split(self) -> None:
        """Move the last singular components of the main weight into the residual; the sum stays the same."""
        parts, rank = self.s_Pr.shape
        weight_POI = self.weight_main.reshape(parts, -1, self.weight_main.shape[1])
        u_POm, s_Pm, v_PmI = torch.linalg.svd(weight_POI, full_matrices=False)
        self.u_POr.copy_(u_POm[..., -rank:])
        self.s_Pr.copy_(s_Pm[..., -rank:])
        self.v_PrI.copy_(v_PmI[..., -rank:, :])
        self.weight_main.copy_((weight_POI - self.residual()).flatten(0, 1))

    def residual(self) -> Tensor:
        """Return `residual_POI`, the learnt part of the weight."""
        return (self.u_POr * self.s_Pr[:, None, :]) @ self.v_PrI

    def factors(self) -> ResidualFactors:
        """Return the weight in parts, for losses on it."""
        parts = len(self.s_Pr)
        main_POI = self.weight_main.reshape(parts, -1, self.weight_main.shape[1])
        return ResidualFactors(main_POI, self.u_POr, self.s_Pr, self.v_PrI)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the layer's output; the last axis is the features'."""
        return F.linear(feature, self.weight_main + self.residual().flatten(0, 1), self.bias)
