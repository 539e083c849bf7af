"""The parts that FatFormer adds to CLIP: adapters inside the image encoder, and cross-attention to and from the text.

An adapter looks at the patch tokens of a block twice. In space: a bottleneck on every token. In frequency: a Haar
wavelet transform of the grid of tokens gives four bands of half the side; attention runs across the bands at each
place, then across places within each band, and the transform is undone. Both are added to the block's output.

Paper: Liu et al., Forgery-aware adaptive transformer for generalizable synthetic image detection, CVPR 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SPACE_SCALE = 0.1
_CHANNELS_PER_GROUP = 8
_N_BANDS = 4


class ForgeryAdapter(nn.Module):
    """Space and frequency adapter of one block.

    Args:
        width: Size of a token, a multiple of 8.
        bottleneck: Size of the bottleneck in space.
        heads: Attention heads of the frequency branch.
        dropout: Probability in [0, 1).
    """

    def __init__(self, width: int, bottleneck: int = 64, heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.dropout = nn.Dropout(dropout)
        # Zero, so that training starts from CLIP as it is.
        self.frequency_scale = nn.Parameter(torch.zeros(1))
        self.band_norm = nn.GroupNorm(width // _CHANNELS_PER_GROUP, width)
        self.across_bands = PostNormAttention(width, heads, dropout)
        self.within_band = PostNormAttention(width, heads, dropout)
        self.feed_forward = PostNormFeedForward(width, dropout)

    def forward(self, token_BND: Tensor) -> Tensor:
        """Return what is added to the block's output, `token_BND`; the class token's frequency part is zero."""
        space_BND = self.up(self.dropout(F.relu(self.down(token_BND)))) * _SPACE_SCALE
        frequency_BND = F.pad(self.frequency(token_BND[:, 1:]), (0, 0, 1, 0))
        added_BND: Tensor = space_BND + frequency_BND * self.frequency_scale
        return added_BND

    def frequency(self, patch_BND: Tensor) -> Tensor:
        """Return the frequency branch's `patch_BND`; N is the square of an even number."""
        side = round(patch_BND.shape[1] ** 0.5)
        band_BDKhw = haar(patch_BND.mT.reshape(patch_BND.shape[0], -1, side, side))
        band_BKND = self.band_norm(band_BDKhw.flatten(3)).permute(0, 2, 3, 1)
        place_BNKD = self.across_bands.to_itself(band_BKND.transpose(1, 2))
        band_BKND = self.feed_forward(self.within_band.to_itself(place_BNKD.transpose(1, 2)))
        band_BDKhw = band_BKND.permute(0, 3, 1, 2).reshape(band_BDKhw.shape)
        return inverse_haar(band_BDKhw).flatten(2).mT


class PostNormAttention(nn.Module):
    """`ln(x + attention(x, y, y))`."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor, y_BMD: Tensor) -> Tensor:
        """Return the new `x_BND`."""
        update_BND, _ = self.attention(x_BND, y_BMD, y_BMD, need_weights=False)
        normed_BND: Tensor = self.norm(x_BND + self.dropout(update_BND))
        return normed_BND

    def to_itself(self, x_BKND: Tensor) -> Tensor:
        """Return the new `x_BKND`; attention runs along its third axis."""
        x_BND = x_BKND.flatten(0, 1)
        return self.forward(x_BND, x_BND).reshape(x_BKND.shape)


class PostNormFeedForward(nn.Module):
    """`ln(x + W2 relu(W1 x))`, four times as wide inside."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new `x`; the last axis is the features'."""
        update = self.linear2(self.dropout(F.relu(self.linear1(x))))
        normed: Tensor = self.norm(x + self.dropout(update))
        return normed


def haar(x_BDhw: Tensor) -> Tensor:
    """Return the bands `band_BDKhw` of one level of the orthonormal Haar transform, each half as large.

    In order: low; detail from row to row; detail from column to column; both. A detail is first minus second.

    Args:
        x_BDhw: Sides even.

    Example:
        >>> haar(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])).flatten().tolist()
        [5.5, -2.5, -1.5, 0.5]
    """
    top, bottom = x_BDhw[..., ::2, :], x_BDhw[..., 1::2, :]
    low, high = top + bottom, top - bottom
    sums = [low[..., ::2] + low[..., 1::2], high[..., ::2] + high[..., 1::2]]
    differences = [low[..., ::2] - low[..., 1::2], high[..., ::2] - high[..., 1::2]]
    return torch.stack(sums + differences, dim=2) / 2


def inverse_haar(band_BDKhw: Tensor) -> Tensor:
    """Undo `haar`.

    Example:
        >>> x = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> torch.equal(inverse_haar(haar(x)), x)
        True
    """
    low, rows, columns, both = band_BDKhw.unbind(dim=2)
    upper = [low + rows + columns + both, low + rows - columns - both]
    lower = [low - rows + columns - both, low - rows - columns + both]
    # Four pixels of a block, row by row, become channels, which pixel_shuffle lays out.
    return F.pixel_shuffle(torch.stack(upper + lower, dim=2).flatten(1, 2) / 2, 2)
