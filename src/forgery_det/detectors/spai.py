"""SPAI: how well a network that learnt to restore missing frequencies recognises an image without them.

    low, high = clip(F^-1(m F(x))), clip(F^-1((1 - m) F(x))),    m: disc of radius 16 in the centred spectrum
    s_k = cos(p_k(f_k(x)), p_k(f_k(low))), cos(p_k(f_k(x)), p_k(f_k(high))), cos(p_k(f_k(low)), p_k(f_k(high)))
    z(x) = head(norm(attention over the image's patches of [mean and spread of all s_k over tokens, c(p(f(x)))]))

f_k are the tokens after block k of a frozen ViT-B/16 that was trained to fill in masked frequencies of real images,
p_k a small network for each block, and c a branch that weighs the blocks of the unfiltered patch. An image of any size
is cut into 224 px patches, so nothing is resized; a learnt vector attends to them.

Karageorgiou et al., "Any-Resolution AI-Generated Image Detection by Spectral Learning", CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from timm.models.beit import Block
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._fourier import inverse2, spectrum2
from forgery_det.detectors.base import Detector, DetectorCard, Normalise
from forgery_det.detectors.resnet_trunk import imagenet_normalisation
from forgery_det.detectors.spai_similarity import SpectralSimilarity
from forgery_det.detectors.weights import load_strict, read_weights, without_prefix
from forgery_det.transforms.preprocess import CenterCrop, Preprocess
from forgery_det.transforms.steps_geometry import LimitSide, PadTo

_MASK = "mfvit.frequencies_mask"

# Parts of the official backbone that its own forward pass never reaches.
_UNUSED = ("cls_pos_embed", "actual_cls_token", "cls_blocks.", "fc_norm.", "intermediate_fc_norm.", "head.", "norm.")


class SPAI(Detector):
    """Spectral reconstruction similarity with attention over the patches of an image of any size.

    Args:
        patch_px: Side of a patch, even; a smaller image is mirrored at its borders.
        crop_px: Side of a centre crop, mirrored at the borders of a smaller image: batches need one size. None scores
            the whole image, as the official code does.
        max_side_px: Longer sides lose their border, to bound the time.
        min_patches: An image with fewer whole patches is seen through its corners and its centre instead.
        masking_radius_px: Radius of the low frequencies in the spectrum.
        backbone_weights: Path of a file with the pretrained backbone, alone or under `encoder.`; None is random.
        width: Channels of the backbone's tokens.
        depth: Blocks of the backbone.
        n_heads: Attention heads of a block.
        token_px: Side of a token.
        projection: Channels that each block's features are projected to.
        attention_width: Channels of the attention over patches.
        n_attention_heads: Its heads.
        head_ratio: Width of the head over that of its input.

    Raises:
        ConfigError: A number is out of range.
        WeightsError: The backbone's weights do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="spai",
        paper="Karageorgiou et al., Any-resolution AI-generated image detection by spectral learning, CVPR 2025",
        year=2025,
        summary="similarity of features with and without low frequencies, attention over patches",
        backbone="ViT-B/16, frozen",
        input="patches of 224 px, any size",
        official_weights="https://github.com/mever-team/spai",
        licence="Apache-2.0",
        not_exported="without `crop_px`: patches depend on the size",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "patch_px": 32,
        "crop_px": 64,
        "masking_radius_px": 4,
        "width": 16,
        "depth": 2,
        "n_heads": 2,
        "projection": 8,
        "attention_width": 8,
        "n_attention_heads": 2,
    }

    def __init__(
        self,
        patch_px: int = 224,
        crop_px: int | None = None,
        max_side_px: int = 4096,
        min_patches: int = 4,
        masking_radius_px: int = 16,
        backbone_weights: str | Path | None = None,
        width: int = 768,
        depth: int = 12,
        n_heads: int = 12,
        token_px: int = 16,
        projection: int = 1024,
        attention_width: int = 1536,
        n_attention_heads: int = 12,
        head_ratio: int = 3,
    ) -> None:
        super().__init__()
        if patch_px % 2 or patch_px % token_px or attention_width % n_attention_heads:
            raise ConfigError(
                f"Expected an even `patch_px` of whole tokens and heads of equal width, got {patch_px} with tokens of "
                f"{token_px}, and {attention_width} channels for {n_attention_heads} heads."
            )
        self.patch_px, self.min_patches, self.crop_px = patch_px, min_patches, crop_px
        if crop_px is not None and crop_px < patch_px:
            raise ConfigError(f"Expected `crop_px` of at least `patch_px` = {patch_px}, got {crop_px}.")
        whole = (LimitSide(max_side_px), PadTo(patch_px))
        self.preprocess = Preprocess(whole if crop_px is None else (CenterCrop(crop_px, crop_px, pad="reflect"),))
        self.mfvit = _Spectral(patch_px, masking_radius_px, width, depth, n_heads, token_px, projection)
        n_features = self.mfvit.features_processor.n_features
        self.to_kv = nn.Linear(n_features, 2 * attention_width, bias=False)
        head_width = attention_width // n_attention_heads
        self.patch_aggregator = nn.Parameter(torch.empty(n_attention_heads, 1, head_width))
        nn.init.trunc_normal_(self.patch_aggregator, std=0.02)
        self.to_out = nn.Sequential(nn.Linear(attention_width, n_features, bias=False))
        self.norm = nn.LayerNorm(n_features)
        self.cls_head = _Head(n_features, head_ratio * n_features)
        self.mfvit.vit.requires_grad_(False)
        if backbone_weights is not None:
            state = read_weights(backbone_weights)
            state = without_prefix(state, "encoder.") or state
            load_strict(self.mfvit.vit, _used(state), str(backbone_weights))

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the official state dict; the fixed mask, and what the method never uses, may be left out."""
        vit = "mfvit.vit."
        backbone = {vit + key: tensor for key, tensor in _used(without_prefix(state, vit)).items()}
        rest = {key: tensor for key, tensor in state.items() if not key.startswith(vit)}
        load_strict(self, {_MASK: self.mfvit.frequencies_mask, **backbone, **rest})

    def export_refusal(self, format_name: str) -> str | None:
        """Return why a graph of any size cannot be made; with `crop_px` all images have one size."""
        if self.crop_px is None:
            return (
                "the number of patches, and where they lie, depends on the image's size, which one graph cannot hold. "
                "Train or load it with `crop_px`, or score with the checkpoint."
            )
        return super().export_refusal(format_name)

    def network(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B` for images in [0, 1] whose sides are at least `patch_px`."""
        patches_BLCHW = cut_patches(image_BCHW, self.patch_px, self.min_patches)
        # A patch at a time bounds the memory of large images: their patches are many, batches are few.
        feature_BLD = torch.stack([self.mfvit(patches_BCHW) for patches_BCHW in patches_BLCHW.unbind(1)], dim=1)
        logit_B1: Tensor = self.cls_head(self.norm(self._attend(feature_BLD)))
        return logit_B1.squeeze(1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        return self.network(image_BCHW).float()

    def _attend(self, feature_BLD: Tensor) -> Tensor:
        """Return the mean of the patches' values, weighted by the learnt query, `feature_BD`."""
        n_heads, _, head_width = self.patch_aggregator.shape
        key_BLK, value_BLK = self.to_kv(feature_BLD).chunk(2, dim=-1)
        key_BLNK, value_BLNK = (part.unflatten(-1, (n_heads, head_width)) for part in (key_BLK, value_BLK))
        affinity_BLN = (key_BLNK * self.patch_aggregator[:, 0]).sum(dim=-1) / head_width**0.5
        weight_BLN = affinity_BLN.softmax(dim=1)
        pooled_BNK = (weight_BLN[..., None] * value_BLNK).sum(dim=1)
        out_BD: Tensor = self.to_out(pooled_BNK.flatten(1))
        return out_BD


class _Head(nn.Module):
    def __init__(self, n_features: int, n_hidden: int) -> None:
        super().__init__()
        self.head = nn.Sequential(
            *(nn.Linear(n_features, n_hidden), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(n_hidden, n_hidden), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(n_hidden, 1),
        )

    def forward(self, feature_BD: Tensor) -> Tensor:
        logit_B1: Tensor = self.head(feature_BD)
        return logit_B1


class _Spectral(nn.Module):
    """Features of one patch: the frozen backbone sees it whole, without high, and without low frequencies."""

    frequencies_mask: Tensor

    def __init__(
        self, patch_px: int, radius_px: int, width: int, depth: int, n_heads: int, token_px: int, projection: int
    ) -> None:
        super().__init__()
        self.vit = _Backbone(patch_px, token_px, width, depth, n_heads)
        self.features_processor = SpectralSimilarity(depth, width, projection)
        self.normalise: Normalise = imagenet_normalisation()
        self.register_buffer("frequencies_mask", low_pass_mask(patch_px, radius_px))

    def forward(self, patch_BCHW: Tensor) -> Tensor:
        low_BCHW, high_BCHW = split_frequencies(patch_BCHW, self.frequencies_mask)
        with torch.no_grad():
            versions = (patch_BCHW, low_BCHW.clamp(0, 1), high_BCHW.clamp(0, 1))
            tokens = [self.vit(self.normalise(version)) for version in versions]
        feature_BD: Tensor = self.features_processor(*tokens)
        return feature_BD

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.vit.eval()
        return self


class _Backbone(nn.Module):
    """ViT that returns the tokens after each block, the class token left out: `feature_BKND`."""

    def __init__(self, patch_px: int, token_px: int, width: int, depth: int, n_heads: int) -> None:
        super().__init__()
        self.patch_embed = _Tokens(width, token_px)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (patch_px // token_px) ** 2, width))
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        blocks = [Block(width, n_heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        token_BND = self.patch_embed(image_BCHW)
        x_BND = torch.cat((self.cls_token.expand(token_BND.shape[0], -1, -1), token_BND), dim=1) + self.pos_embed
        outputs = []
        for block in self.blocks:
            x_BND = block(x_BND)
            outputs.append(x_BND[:, 1:])
        return torch.stack(outputs, dim=1)


class _Tokens(nn.Module):
    """Linear embedding of square pieces of an image."""

    def __init__(self, width: int, token_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, token_px, stride=token_px)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        token_BND: Tensor = self.proj(image_BCHW).flatten(2).transpose(1, 2)
        return token_BND


def _used(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(_UNUSED)}


def cut_patches(image_BCHW: Tensor, patch_px: int, min_patches: int) -> Tensor:
    """Return `patches_BLCHW`: whole patches row by row, the remainder at the right and the bottom dropped.

    With fewer than `min_patches` of them: the four corners and the centre.

    Example:
        >>> cut_patches(torch.zeros(1, 3, 70, 64), 32, 4).shape, cut_patches(torch.zeros(1, 3, 40, 64), 32, 4).shape
        (torch.Size([1, 4, 3, 32, 32]), torch.Size([1, 5, 3, 32, 32]))
    """
    height, width = image_BCHW.shape[-2:]
    places = [
        (top, left)
        for top in range(0, height - patch_px + 1, patch_px)
        for left in range(0, width - patch_px + 1, patch_px)
    ]
    if len(places) < min_patches:
        bottom, right = height - patch_px, width - patch_px
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    patches = [image_BCHW[..., top : top + patch_px, left : left + patch_px] for top, left in places]
    return torch.stack(patches, dim=1)


def low_pass_mask(side_px: int, radius_px: int) -> Tensor:
    """Return `mask_HW`, int64: 1 inside a disc of the shifted spectrum.

    The official disc is centred between the two middle frequencies of an even side, not on frequency 0.

    Example:
        >>> low_pass_mask(4, 1).sum().item()
        4
    """
    half = torch.arange(side_px // 2)
    distance = torch.cat((half.flip(0), half))
    return (distance[:, None] ** 2 + distance[None, :] ** 2 < radius_px**2).long()


def split_frequencies(image_BCHW: Tensor, mask_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of an image inside the mask of its shifted spectrum, and the part outside.

    Example:
        >>> image = torch.rand(1, 3, 8, 8)
        >>> low, high = split_frequencies(image, low_pass_mask(8, 2))
        >>> torch.allclose(low + high, image, atol=1e-6)
        True
    """
    dims = (-2, -1)
    if torch.compiler.is_exporting():
        inside_HW = torch.fft.ifftshift(mask_HW, dim=dims).to(image_BCHW)
        real, imaginary = spectrum2(image_BCHW.float())
        low = inverse2(real * inside_HW, imaginary * inside_HW)
        return low, image_BCHW - low
    spectrum = torch.fft.fftshift(torch.fft.fft2(image_BCHW.float()), dim=dims)
    parts = (spectrum * mask_HW, spectrum * (1 - mask_HW))
    low, high = (torch.fft.ifft2(torch.fft.ifftshift(part, dim=dims)).real for part in parts)
    return low.to(image_BCHW.dtype), high.to(image_BCHW.dtype)
