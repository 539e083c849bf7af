"""CLIP's image encoder, shared by the detectors that stand on it.

The trunk is timm's vision transformer in the shape that CLIP has: a patch embedding without bias, a class token, learnt
positions, a layer norm before the blocks and one after them, and a linear projection into the space shared with text:
`embedding = P ln_post(blocks(ln_pre([cls; patches] + positions)))_cls`.

Two details change the numbers and are easily missed. OpenAI's weights were trained with QuickGELU, `x s(1.702 x)`; most
of the open_clip weights with the exact GELU. And some detectors read the class token before the projection, others
after it, or from inside the blocks. Each detector states which.

The same network is published under three naming schemes, and all are read: OpenAI and open_clip (`visual.*`), Hugging
Face (`vision_model.*`), timm.

Paper: Radford et al., Learning transferable visual models from natural language supervision, ICML 2021.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors.backbones import create_backbone
from forgery_det.detectors.weights import load_strict, read_weights

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TIMM = "timm"
"""Value of `backbone_weights` that asks for the published weights, downloaded by timm."""


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """Shape of an image encoder of the CLIP family, and where its published weights are.

    Args:
        width: Size of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        patch_px: Side of a patch.
        image_px: Side of the image.
        embedding: Size of the projected class token.
        quick_gelu: Whether the blocks use QuickGELU rather than the exact GELU.
        timm_name: Model of timm with the published weights; empty when there are none.
    """

    width: int
    depth: int
    heads: int
    patch_px: int
    image_px: int
    embedding: int
    quick_gelu: bool = True
    timm_name: str = ""


CLIP_BACKBONES = {
    "clip_vit_b32": ClipSpec(768, 12, 12, 32, 224, 512, timm_name="vit_base_patch32_clip_quickgelu_224.openai"),
    "clip_vit_b16": ClipSpec(768, 12, 12, 16, 224, 512, timm_name="vit_base_patch16_clip_quickgelu_224.openai"),
    "clip_vit_l14": ClipSpec(1024, 24, 16, 14, 224, 768, timm_name="vit_large_patch14_clip_quickgelu_224.openai"),
    "clip_vit_l14_336": ClipSpec(1024, 24, 16, 14, 336, 768, timm_name="vit_large_patch14_clip_quickgelu_336.openai"),
    "clip_vit_l14_datacomp": ClipSpec(
        1024, 24, 16, 14, 224, 768, quick_gelu=False, timm_name="vit_large_patch14_clip_224.datacompxl"
    ),
    "clip_vit_l14_commonpool": ClipSpec(1024, 24, 16, 14, 224, 768, quick_gelu=False),
    "test_clip_vit": ClipSpec(32, 3, 2, 14, 56, 24),
}
"""Backbone name -> its shape; the last is a random one for tests."""


def clip_spec(backbone: str) -> ClipSpec:
    """Return the shape of a named backbone.

    Raises:
        ConfigError: The name is unknown.

    Example:
        >>> clip_spec("clip_vit_l14").width
        1024
    """
    if backbone not in CLIP_BACKBONES:
        raise ConfigError(f"Unknown CLIP backbone {backbone!r}: {did_you_mean(backbone, CLIP_BACKBONES)}")
    return CLIP_BACKBONES[backbone]


class ClipTower(nn.Module):
    """The image encoder; input is the normalised image.

    Args:
        spec: Its shape.
        projected: Whether it holds the projection; detectors that read the unprojected token go without.
    """

    def __init__(self, spec: ClipSpec, *, projected: bool = True) -> None:
        super().__init__()
        self.spec = spec
        trunk: Any = VisionTransformer(
            img_size=spec.image_px,
            patch_size=spec.patch_px,
            embed_dim=spec.width,
            depth=spec.depth,
            num_heads=spec.heads,
            num_classes=0,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            act_layer="quick_gelu" if spec.quick_gelu else "gelu",
            weight_init="skip",  # the usual linear initialisation is three times faster than truncated normals
        )
        self.trunk: Any = trunk
        for token in (trunk.cls_token, trunk.pos_embed):
            nn.init.normal_(token, std=0.02)
        self.projection = nn.Linear(spec.width, spec.embedding, bias=False) if projected else None

    def embed_patches(self, image_BCHW: Tensor) -> Tensor:
        """Return `token_BND` that enters the first block: the class token, then the patches in row-major order."""
        token_BND: Tensor = self.trunk.norm_pre(self.trunk._pos_embed(self.trunk.patch_embed(image_BCHW)))
        return token_BND

    def class_token(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BD`: the class token after the last layer norm, not projected."""
        token_BND: Tensor = self.trunk.norm(self.trunk.blocks(self.embed_patches(image_BCHW))[:, 0])
        return token_BND

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return `feature_BE`: the class token, projected where the tower holds the projection."""
        feature_BD = self.class_token(image_BCHW)
        return feature_BD if self.projection is None else self.projection(feature_BD)

    def inner_class_tokens(self, image_BCHW: Tensor) -> Iterator[Tensor]:
        """Yield `feature_BD` of each block: the class token after the block's second layer norm, before its MLP."""
        token_BND = self.embed_patches(image_BCHW)
        for block in self.trunk.blocks:
            token_BND = token_BND + block.attn(block.norm1(token_BND))
            normed_BND = block.norm2(token_BND)
            yield normed_BND[:, 0]
            token_BND = token_BND + block.mlp(normed_BND)


def fill_backbone(tower: ClipTower, source: str | Path | None) -> None:
    """Fill a tower with published weights.

    Args:
        tower: What is filled.
        source: None leaves the random weights; `timm` downloads the published ones; else the path of a file with the
            names of OpenAI, open_clip, Hugging Face or timm.

    Raises:
        ConfigError: The backbone has no published weights.
        WeightsError: The weights cannot be had or do not fit.
    """
    if source is None:
        return
    if source == TIMM:
        if not tower.spec.timm_name:
            raise ConfigError(
                "Expected a backbone whose weights timm has, got one without. Give a file (backbone_weights=PATH), or "
                "ask for random weights (backbone_weights=None)."
            )
        state = create_backbone(tower.spec.timm_name, TIMM, tower.spec.embedding).state_dict()
        load_strict(tower, _for_tower(state, tower), tower.spec.timm_name)
    else:
        load_strict(tower, _for_tower(read_weights(source), tower), str(source))


def _for_tower(state: Mapping[str, Tensor], tower: ClipTower) -> dict[str, Tensor]:
    """Return a published state dict under the tower's names: text tower off, and the projection when it has none."""
    named = dict(state)
    openai = _prefix(named, "visual.class_embedding")
    hugging_face = _prefix(named, "embeddings.class_embedding")
    if openai is not None:
        named = from_openai(without_text_tower(named, openai), f"{openai}visual.", "")
    elif hugging_face is not None:
        outer = hugging_face.removesuffix("vision_model.")
        named = from_hugging_face(without_hugging_face_text(named, outer), hugging_face, "")
        projection = f"{outer}visual_projection.weight"
        named = {("projection.weight" if k == projection else k): v for k, v in named.items()}
    elif "cls_token" in named:
        named.pop("head.bias", None)  # timm adds zeros, since its head is a classifier's
        named = {f"trunk.{k}": v for k, v in named.items() if k != "head.weight"} | (
            {"projection.weight": named["head.weight"]} if "head.weight" in named else {}
        )
    if tower.projection is None:
        named.pop("projection.weight", None)
    return named


def _prefix(state: Mapping[str, Tensor], marker: str) -> str | None:
    """Return what stands before `marker` in a state dict: files of one part of a module keep the module's names."""
    return next((name.removesuffix(marker) for name in state if name.endswith(marker)), None)


_OPENAI = (
    (r"conv1\.weight", r"trunk.patch_embed.proj.weight"),
    (r"class_embedding", r"trunk.cls_token"),
    (r"positional_embedding", r"trunk.pos_embed"),
    (r"proj", r"projection.weight"),
    (r"ln_pre\.(weight|bias)", r"trunk.norm_pre.\1"),
    (r"ln_post\.(weight|bias)", r"trunk.norm.\1"),
    (r"transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)", r"trunk.blocks.\1.norm\2.\3"),
    (r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)", r"trunk.blocks.\1.attn.qkv.\2"),
    (r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)", r"trunk.blocks.\1.attn.proj.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)", r"trunk.blocks.\1.mlp.fc1.\2"),
    (r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)", r"trunk.blocks.\1.mlp.fc2.\2"),
)
_HUGGING_FACE = (
    (r"embeddings\.patch_embedding\.weight", r"trunk.patch_embed.proj.weight"),
    (r"embeddings\.class_embedding", r"trunk.cls_token"),
    (r"embeddings\.position_embedding\.weight", r"trunk.pos_embed"),
    (r"pre_layrnorm\.(weight|bias)", r"trunk.norm_pre.\1"),
    (r"post_layernorm\.(weight|bias)", r"trunk.norm.\1"),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.(weight|bias)", r"trunk.blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)", r"trunk.blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.(\d+)\.self_attn\.qkv_proj\.(\w+)", r"trunk.blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc([12])\.(weight|bias)", r"trunk.blocks.\1.mlp.fc\2.\3"),
)
OPENAI_SIZES = ("input_resolution", "context_length", "vocab_size")
"""Scalars that OpenAI's own file has among its tensors."""
_TEXT_TOWER = re.compile(
    rf"{'|'.join(OPENAI_SIZES)}|positional_embedding|text_projection|logit_scale|token_embedding\.weight|ln_final\.(weight|bias)|"
    r"transformer\.resblocks\.\d+\.(ln_[12]\.(weight|bias)|attn\.in_proj_(weight|bias)|"
    r"attn\.out_proj\.(weight|bias)|mlp\.c_(fc|proj)\.(weight|bias))"
)


def from_openai(state: Mapping[str, Tensor], prefix: str, to: str) -> dict[str, Tensor]:
    """Rename OpenAI's and open_clip's names of the image encoder to a tower's; other names stay.

    Args:
        state: Official state dict.
        prefix: What stands before `class_embedding` in it, for instance `model.visual.`.
        to: What stands before the tower's names, for instance `clip.`.

    Example:
        >>> list(from_openai({"visual.proj": torch.zeros(4, 2), "fc.bias": torch.zeros(1)}, "visual.", "clip."))
        ['clip.projection.weight', 'fc.bias']
    """
    return _renamed(state, prefix, to, _OPENAI)


def from_hugging_face(state: Mapping[str, Tensor], prefix: str, to: str) -> dict[str, Tensor]:
    """Rename Hugging Face's names of the image encoder to a tower's; other names stay.

    Query, key and value are joined into one. The projection lies outside `vision_model` there, and is left to the
    caller. `position_ids`, which old versions saved, is dropped.

    Args:
        state: Official state dict.
        prefix: What stands before `embeddings.` in it, for instance `model.vision_model.`.
        to: What stands before the tower's names, for instance `clip.`.
    """
    joined = dict(state)
    joined.pop(f"{prefix}embeddings.position_ids", None)
    for name in state:
        if name.startswith(prefix) and ".self_attn.q_proj." in name:
            parts = [name.replace(".q_proj.", f".{part}_proj.") for part in "qkv"]
            if all(part in joined for part in parts):
                joined[name.replace(".q_proj.", ".qkv_proj.")] = torch.cat([joined.pop(part) for part in parts])
    return _renamed(joined, prefix, to, _HUGGING_FACE)


def without_text_tower(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Drop the text encoder of an OpenAI CLIP, whose names follow `prefix`; it does not touch an image's logit."""
    return {
        name: tensor
        for name, tensor in state.items()
        if not (name.startswith(prefix) and _TEXT_TOWER.fullmatch(name.removeprefix(prefix)))
    }


def without_hugging_face_text(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Drop the text encoder of a Hugging Face CLIP, whose names follow `prefix`."""
    dropped = tuple(prefix + part for part in ("text_model.", "text_projection.weight", "logit_scale"))
    return {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}


def _renamed(
    state: Mapping[str, Tensor], prefix: str, to: str, rules: tuple[tuple[str, str], ...]
) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        rest = name.removeprefix(prefix)
        rule = next((rule for rule in rules if re.fullmatch(rule[0], rest)), None) if name.startswith(prefix) else None
        if rule is None:
            renamed[name] = tensor
            continue
        own = re.sub(rule[0], rule[1], rest)
        if own == "projection.weight":
            tensor = tensor.T  # stored as the right factor: x @ proj
        elif own in ("trunk.cls_token", "trunk.pos_embed"):
            tensor = tensor.reshape(1, -1, tensor.shape[-1])
        renamed[to + own] = tensor
    return renamed
