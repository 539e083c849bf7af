"""FatFormer: CLIP with adapters in its image encoder, which decides by comparing an image with two prompts.

    f = P ln_post(tokens)                         (all tokens; adapters act in every third block)
    c = enhance(context, f)                       (learnt context words look at the image)
    t_k = text encoder([start, c, name_k, ".", end])    k = real, fake
    p = mean of interact(patches of f, t)         (patches look at the prompts)
    z_k = s (cos(f_cls, t_k) + cos(p, t_k))       s: CLIP's temperature;    z = z_fake - z_real

Frozen features miss forgery traces and fine-tuning forgets what CLIP knows; adapters in space and in wavelet bands sit
between. Comparing with language keeps the decision in the space that CLIP was trained in.

The text encoder reads from left to right, so nothing after a prompt's end matters: only its twelve words are encoded,
where the authors pad to 77. Images are normalised with ImageNet's constants, although the backbone is CLIP.

Paper: Liu et al., Forgery-aware adaptive transformer for generalizable synthetic image detection, CVPR 2024.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.detectors._clip_vit import OPENAI_SIZES, ClipTower, clip_spec, from_openai
from forgery_det.detectors._forgery_adapter import ForgeryAdapter, PostNormAttention, PostNormFeedForward
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.resnet_trunk import imagenet_normalisation
from forgery_det.detectors.weights import load_strict, read_weights
from forgery_det.transforms.preprocess import CenterCrop, Preprocess, ResizeExact

_N_CONTEXT = 8
_START, _END, _STOP = 49406, 49407, 269
_NAMES = {"real": 1532, "fake": 5777}
"""CLIP's token numbers of the start, the end, the full stop and the two class names."""
_N_AFTER = 3
_ATTENTION_HEADS = 12


class FatFormer(Detector):
    """CLIP with forgery-aware adapters and language-guided alignment.

    Adapters, context, alignment and interaction learn; CLIP is frozen.

    Args:
        backbone: Name in `CLIP_BACKBONES`.
        n_adapters: Blocks with an adapter, evenly spaced, the last included; divides the number of blocks.
        text_depth: Blocks of the text encoder, at least 1.
        backbone_weights: Path of a file with both encoders under OpenAI's or open_clip's names, or None for random
            ones. `timm` is refused: it has no text encoders.

    Raises:
        ConfigError: The backbone is unknown, or a number is out of range.
        WeightsError: The weights cannot be had or do not fit.
    """

    card: ClassVar[DetectorCard] = DetectorCard(
        name="fatformer",
        paper="Liu et al., Forgery-aware adaptive transformer for generalizable synthetic image detection, CVPR 2024",
        year=2024,
        summary="CLIP with adapters in space and wavelet bands, compared with two prompts",
        backbone="CLIP ViT-L/14 (OpenAI), both encoders",
        input="resized to 256 x 256 px (bilinear), centre crop of 224 px",
        official_weights="https://github.com/Michel-liu/FatFormer",
        licence="Apache-2.0",
    )
    tiny: ClassVar[Mapping[str, Any]] = {
        "backbone": "test_clip_vit",
        "n_adapters": 1,
        "text_depth": 1,
        "backbone_weights": None,
    }

    def __init__(
        self,
        backbone: str = "clip_vit_l14",
        n_adapters: int = 8,
        text_depth: int = 12,
        backbone_weights: str | Path | None = "timm",
    ) -> None:
        super().__init__()
        spec = clip_spec(backbone)
        if n_adapters < 1 or spec.depth % n_adapters or text_depth < 1:
            raise ConfigError(
                f"Expected n_adapters to divide {spec.depth} and text_depth of at least 1, got {n_adapters} and "
                f"{text_depth}."
            )
        resized_px = spec.image_px * 8 // 7
        self.preprocess = Preprocess(
            (ResizeExact(resized_px, resized_px, "bilinear"), CenterCrop(spec.image_px, spec.image_px))
        )
        self.normalise = imagenet_normalisation()
        self.clip = ClipTower(spec).requires_grad_(False)
        self.text = PromptEncoder(spec.embedding, text_depth).requires_grad_(False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)), requires_grad=False)
        every = spec.depth // n_adapters
        self.adapters = nn.ModuleDict({str(k): ForgeryAdapter(spec.width) for k in range(every - 1, spec.depth, every)})
        self.context_ND = nn.Parameter(torch.randn(_N_CONTEXT, spec.embedding) * 0.02)
        self.enhancer = PostNormAttention(spec.embedding, _ATTENTION_HEADS)
        self.enhancer_feed_forward = PostNormFeedForward(spec.embedding)
        self.interactor = PostNormAttention(spec.embedding, _ATTENTION_HEADS)
        self.interactor_feed_forward = PostNormFeedForward(spec.embedding)
        if backbone_weights is not None:
            self._fill_backbone(backbone_weights)

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Load the authors' state dict, or one of ours.

        Theirs holds both encoders twice, under two names; the later one counts, as it does in their code.
        """
        load_strict(self, _own_state(state))

    def image_tokens(self, image_BCHW: Tensor) -> Tensor:
        """Return `token_BNE`: all tokens after the last norm, projected."""
        token_BND = self.clip.embed_patches(self.normalise(image_BCHW))
        for index, block in enumerate(self.clip.trunk.blocks):
            token_BND = token_BND + block.attn(block.norm1(token_BND))
            update_BND = block.mlp(block.norm2(token_BND))
            if str(index) in self.adapters:
                update_BND = update_BND + self.adapters[str(index)](token_BND)
            token_BND = token_BND + update_BND
        token_BNE: Tensor = self.clip.projection(self.clip.trunk.norm(token_BND))  # type: ignore[misc]
        return token_BNE

    def class_logits(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_BK`, K = 2: real, fake."""
        token_BNE = self.image_tokens(image_BCHW)
        context_BNE = self.enhancer(self.context_ND.expand(token_BNE.shape[0], -1, -1), token_BNE)
        text_BKE = self.text(self.enhancer_feed_forward(context_BNE))
        patch_BNE = self.interactor_feed_forward(self.interactor(token_BNE[:, 1:], text_BKE))
        direction_BE = F.normalize(token_BNE[:, 0], dim=-1) + F.normalize(patch_BNE.mean(dim=1), dim=-1)
        similarity_BK = (direction_BE[:, None] * F.normalize(text_BKE, dim=-1)).sum(dim=-1)
        return self.logit_scale.exp() * similarity_BK

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `logit_B`."""
        logit_BK = self.class_logits(image_BCHW).float()
        return logit_BK[:, 1] - logit_BK[:, 0]

    def _fill_backbone(self, source: str | Path) -> None:
        if source == "timm":
            raise ConfigError(
                "Expected a file with CLIP's image and text encoder, got 'timm', which has no text encoders. Give "
                "backbone_weights=PATH, or None for random weights."
            )
        # OpenAI's own file has three sizes among its tensors.
        published = {f"clip_model.{k}": v for k, v in read_weights(source).items() if k not in OPENAI_SIZES}
        words_VE = published.pop("clip_model.token_embedding.weight", None)
        if words_VE is not None and len(words_VE) > _END:
            after_KN = torch.tensor([[number, _STOP, _END] for number in _NAMES.values()])
            published["language_guided_alignment.token_prefix"] = words_VE[torch.full((len(_NAMES), 1), _START)]
            published["language_guided_alignment.token_suffix"] = words_VE[after_KN]
        added = {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith(("clip.", "text.", "logit_scale"))
        }
        load_strict(self, {**_own_state(published), **added}, str(source))


class PromptEncoder(nn.Module):
    """CLIP's text encoder on the two prompts, of which only the context words change.

    Args:
        width: Size of a word.
        depth: Number of blocks.
    """

    start_K1D: Tensor
    after_KND: Tensor
    mask_NN: Tensor

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        n_words = 1 + _N_CONTEXT + _N_AFTER
        self.register_buffer("start_K1D", torch.randn(len(_NAMES), 1, width) * 0.02)
        self.register_buffer("after_KND", torch.randn(len(_NAMES), _N_AFTER, width) * 0.02)
        self.position_ND = nn.Parameter(torch.randn(n_words, width) * 0.01)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, _ATTENTION_HEADS, 4 * width, 0.0, activation=_quick_gelu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, width, bias=False)
        mask_NN = nn.Transformer.generate_square_subsequent_mask(n_words)
        self.register_buffer("mask_NN", mask_NN, persistent=False)

    def forward(self, context_BND: Tensor) -> Tensor:
        """Return `text_BKE`: the embedding of each prompt, read at its last word."""
        batch = context_BND.shape[0]
        context_BKND = context_BND[:, None].expand(-1, len(_NAMES), -1, -1)
        start_BK1D = self.start_K1D.expand(batch, -1, -1, -1)
        after_BKND = self.after_KND.expand(batch, -1, -1, -1)
        word_BKND = torch.cat([start_BK1D, context_BKND, after_BKND], dim=2) + self.position_ND
        word_BND = word_BKND.flatten(0, 1)
        for block in self.blocks:
            word_BND = block(word_BND, src_mask=self.mask_NN)
        text_BE: Tensor = self.projection(self.norm(word_BND[:, -1]))
        return text_BE.reshape(batch, len(_NAMES), -1)


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


_FILTERS = re.compile(r".*\.forgery_aware_adapter\.i?dwt_transform\.[gh][01]_(col|row)")
_ADAPTER = re.compile(
    r"(?:clip_model\.visual|image_encoder)\.transformer\.resblocks\.(\d+)\.forgery_aware_adapter\.(.*)"
)
_RENAMED = (
    (r"adapters\.(\d+)\.first_conv_layer\.", r"adapters.\1.down."),
    (r"adapters\.(\d+)\.second_conv_layer\.", r"adapters.\1.up."),
    (r"adapters\.(\d+)\.freq_scale", r"adapters.\1.frequency_scale"),
    (r"adapters\.(\d+)\.dwt_norm\.", r"adapters.\1.band_norm."),
    (r"adapters\.(\d+)\.intra_band\.", r"adapters.\1.across_bands.attention."),
    (r"adapters\.(\d+)\.norm_intra\.", r"adapters.\1.across_bands.norm."),
    (r"adapters\.(\d+)\.inter_band\.", r"adapters.\1.within_band.attention."),
    (r"adapters\.(\d+)\.norm_inter\.", r"adapters.\1.within_band.norm."),
    (r"adapters\.(\d+)\.norm3\.", r"adapters.\1.feed_forward.norm."),
    (r"adapters\.(\d+)\.linear([12])\.", r"adapters.\1.feed_forward.linear\2."),
    (r"language_guided_alignment\.ctx", r"context_ND"),
    (r"language_guided_alignment\.token_prefix", r"text.start_K1D"),
    (r"language_guided_alignment\.token_suffix", r"text.after_KND"),
    (r"language_guided_alignment\.patch_basaed_enhancer\.", r"enhancer.attention."),
    (r"language_guided_alignment\.norm1\.", r"enhancer.norm."),
    (r"language_guided_alignment\.norm2\.", r"enhancer_feed_forward.norm."),
    (r"language_guided_alignment\.linear([12])\.", r"enhancer_feed_forward.linear\1."),
    (r"text_guided_interactor\.", r"interactor.attention."),
    (r"norm1\.", r"interactor.norm."),
    (r"norm2\.", r"interactor_feed_forward.norm."),
    (r"linear([12])\.", r"interactor_feed_forward.linear\1."),
    (r"(?:clip_model|text_encoder)\.positional_embedding", r"text.position_ND"),
    (r"(?:clip_model|text_encoder)\.text_projection", r"text.projection.weight"),
    (r"(?:clip_model|text_encoder)\.ln_final\.", r"text.norm."),
    (r"(?:clip_model|text_encoder)\.transformer\.resblocks\.(\d+)\.attn\.", r"text.blocks.\1.self_attn."),
    (r"(?:clip_model|text_encoder)\.transformer\.resblocks\.(\d+)\.ln_([12])\.", r"text.blocks.\1.norm\2."),
    (r"(?:clip_model|text_encoder)\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.", r"text.blocks.\1.linear1."),
    (r"(?:clip_model|text_encoder)\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.", r"text.blocks.\1.linear2."),
    (r"clip_model\.logit_scale", r"logit_scale"),
)


def _own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the authors' state dict under our names, without the wavelet's fixed filters and the table of words."""
    named: dict[str, Tensor] = {}
    # Both encoders stand there twice; the names that begin with `clip_model.` are the earlier ones.
    for name, tensor in sorted(state.items(), key=lambda item: not item[0].startswith("clip_model.")):
        if _FILTERS.fullmatch(name) or name == "clip_model.token_embedding.weight":
            continue
        own = _ADAPTER.sub(r"adapters.\1.\2", name)
        for theirs, ours in _RENAMED:
            own, n_matches = re.subn("^" + theirs, ours, own)
            if n_matches:
                break
        named[own] = _own_values(own, name, tensor)
    named = from_openai(named, "clip_model.visual.", "clip.")
    return from_openai(named, "image_encoder.", "clip.")


def _own_values(own: str, name: str, tensor: Tensor) -> Tensor:
    """Return a tensor in our layout: what no prompt reaches is cut off, 1 x 1 convolutions are linear layers."""
    if own == name:
        return tensor
    if own == "text.position_ND":
        return tensor[: 1 + _N_CONTEXT + _N_AFTER]
    if own == "text.after_KND":
        return tensor[:, :_N_AFTER]
    if own == "text.projection.weight":
        return tensor.T
    return tensor.squeeze(-1) if own.endswith((".down.weight", ".up.weight")) else tensor
