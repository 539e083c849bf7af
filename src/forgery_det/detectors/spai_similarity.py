"""The trained part of SPAI on one patch: similarities between three spectra of it, block by block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DROPOUT = 0.5


class SpectralSimilarity(nn.Module):
    """Mean and spread over tokens of the cosine similarities of projected features, and a summary of the features.

    Args:
        n_blocks: Blocks of the backbone.
        width: Channels of their tokens.
        projection: Channels after projection.
    """

    def __init__(self, n_blocks: int, width: int, projection: int) -> None:
        super().__init__()
        self.n_features = 6 * n_blocks + projection
        self.patch_projector = _BlockProjectors(n_blocks, width, projection)
        self.original_features_processor = _BlockMixture(n_blocks, projection)

    def forward(self, whole_BKND: Tensor, low_BKND: Tensor, high_BKND: Tensor) -> Tensor:
        """Return `feature_BD` from the tokens of the patch and of its low and high frequencies."""
        whole, low, high = (self.patch_projector(tokens) for tokens in (whole_BKND, low_BKND, high_BKND))
        statistics = []
        for one, other in ((whole, low), (whole, high), (low, high)):
            similarity_BKN = F.cosine_similarity(one, other, dim=-1)
            statistics += [similarity_BKN.mean(dim=-1), similarity_BKN.std(dim=-1)]
        return torch.cat([*statistics, self.original_features_processor(whole)], dim=1)


class _BlockProjectors(nn.Module):
    """A projection for each block's tokens."""

    def __init__(self, n_blocks: int, width: int, projection: int) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(
            [_Projector(width, projection, input_norm=True, last_activation=False) for _ in range(n_blocks)]
        )

    def forward(self, tokens_BKND: Tensor) -> Tensor:
        blocks = zip(self.projectors, tokens_BKND.unbind(1), strict=True)
        return torch.stack([projector(tokens_BND) for projector, tokens_BND in blocks], dim=1)


class _BlockMixture(nn.Module):
    """Mean and spread over tokens, projected, and mixed over the blocks with a learnt weight for each channel."""

    def __init__(self, n_blocks: int, projection: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.randn(1, n_blocks, projection))
        self.proj1 = _Projector(2 * projection, projection, input_norm=False, last_activation=True)
        self.proj2 = _Projector(projection, projection, input_norm=False, last_activation=True)

    def forward(self, tokens_BKND: Tensor) -> Tensor:
        summary_BKD = torch.cat((tokens_BKND.mean(dim=2), tokens_BKND.std(dim=2)), dim=-1)
        mixed_BD = (self.alpha.softmax(dim=1) * self.proj1(summary_BKD)).sum(dim=1)
        out_BD: Tensor = self.proj2(mixed_BD)
        return out_BD


class _Projector(nn.Module):
    def __init__(self, n_in: int, n_out: int, *, input_norm: bool, last_activation: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(n_in) if input_norm else nn.Identity()
        self.projector = nn.Sequential(
            nn.Dropout(_DROPOUT),
            *(nn.Linear(n_in, n_out), nn.GELU(), nn.Dropout(_DROPOUT)),
            *(nn.Linear(n_out, n_out), nn.GELU() if last_activation else nn.Identity(), nn.Dropout(_DROPOUT)),
        )
        self.norm2 = nn.LayerNorm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm2(self.projector(self.norm1(x)))
        return out
