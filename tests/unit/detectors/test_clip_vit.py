"""The image encoder against a plain implementation, under each naming scheme."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors._clip_vit import ClipTower, clip_spec, fill_backbone

SPEC = clip_spec("test_clip_vit")
TEXT = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "token_embedding.weight",
    "ln_final.bias",
    "vocab_size",
)


def openai_state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under OpenAI's names, the text encoder's included."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    width = SPEC.width
    state = {
        "class_embedding": draw(width),
        "positional_embedding": draw((SPEC.image_px // SPEC.patch_px) ** 2 + 1, width),
        "proj": draw(width, SPEC.embedding),
        "conv1.weight": draw(width, 3, SPEC.patch_px, SPEC.patch_px),
    }
    norms = ["ln_pre", "ln_post"]
    for k in range(SPEC.depth):
        block = f"transformer.resblocks.{k}."
        norms += [f"{block}ln_1", f"{block}ln_2"]
        state |= {
            f"{block}attn.in_proj_weight": draw(3 * width, width),
            f"{block}attn.in_proj_bias": draw(3 * width),
            f"{block}attn.out_proj.weight": draw(width, width),
            f"{block}attn.out_proj.bias": draw(width),
            f"{block}mlp.c_fc.weight": draw(4 * width, width),
            f"{block}mlp.c_fc.bias": draw(4 * width),
            f"{block}mlp.c_proj.weight": draw(width, 4 * width),
            f"{block}mlp.c_proj.bias": draw(width),
        }
    state |= {f"{norm}.weight": 1 + draw(width) for norm in norms}
    state |= {f"{norm}.bias": draw(width) for norm in norms}
    text = {name: draw(2, 2) for name in (*TEXT, "vocab_size")} | {"transformer.resblocks.0.attn.in_proj_bias": draw(2)}
    return {f"visual.{name}": tensor for name, tensor in state.items()} | text


def hugging_face_state(openai: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under Hugging Face's names."""
    renames = (
        ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
        ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
        ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        ("visual.ln_pre.", "vision_model.pre_layrnorm."),
        ("visual.ln_post.", "vision_model.post_layernorm."),
        ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
        (".ln_", ".layer_norm"),
        (".attn.out_proj.", ".self_attn.out_proj."),
        (".mlp.c_fc.", ".mlp.fc1."),
        (".mlp.c_proj.", ".mlp.fc2."),
    )
    state = {"vision_model.embeddings.position_ids": torch.arange(3), "logit_scale": torch.zeros(())}
    for name, tensor in openai.items():
        if not name.startswith("visual."):
            continue
        if name == "visual.proj":
            state["visual_projection.weight"] = tensor.T.contiguous()
            continue
        for theirs, ours in renames:
            name = name.replace(theirs, ours)
        joined = re.fullmatch(r"(.*)\.attn\.in_proj_(weight|bias)", name)
        if joined is None:
            state[name] = tensor
        else:
            for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{joined[1]}.self_attn.{part}_proj.{joined[2]}"] = chunk.clone()
    return state


def plain_forward(state: dict[str, Tensor], image_BCHW: Tensor, quick_gelu: bool = True) -> tuple[Tensor, Tensor]:
    """CLIP as its paper has it; returns the projected class token and those after each block's second norm."""
    own = {name.removeprefix("visual."): tensor for name, tensor in state.items() if name.startswith("visual.")}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], own[f"{name}.weight"], own[f"{name}.bias"], 1e-5)

    patches = F.conv2d(image_BCHW, own["conv1.weight"], stride=SPEC.patch_px).flatten(2).mT
    x = torch.cat([own["class_embedding"].expand(len(patches), 1, -1), patches], 1) + own["positional_embedding"]
    x = norm(x, "ln_pre").transpose(0, 1)
    inner = []
    for k in range(SPEC.depth):
        block = f"transformer.resblocks.{k}."
        y = norm(x, f"{block}ln_1")
        projections = [own[f"{block}attn.{name}"] for name in ("in_proj_weight", "in_proj_bias")]
        out = [own[f"{block}attn.out_proj.{name}"] for name in ("weight", "bias")]
        attended, _ = F.multi_head_attention_forward(
            y, y, y, SPEC.width, SPEC.heads, *projections, None, None, False, 0.0, *out
        )
        x = x + attended
        y = norm(x, f"{block}ln_2")
        inner.append(y[0])
        y = F.linear(y, own[f"{block}mlp.c_fc.weight"], own[f"{block}mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y) if quick_gelu else F.gelu(y)
        x = x + F.linear(y, own[f"{block}mlp.c_proj.weight"], own[f"{block}mlp.c_proj.bias"])
    return norm(x[0], "ln_post") @ own["proj"], torch.stack(inner, 1)


@pytest.fixture(name="image_BCHW")
def make_image() -> Tensor:
    return torch.randn(2, 3, SPEC.image_px, SPEC.image_px, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scheme", ["openai", "module", "part", "hugging_face", "hugging_part", "timm"])
def test_every_naming_scheme_gives_the_plain_numbers(scheme, image_BCHW, tmp_path):
    openai = openai_state()
    tower = ClipTower(SPEC)
    torch.save(openai, tmp_path / "openai.pt")
    fill_backbone(tower, tmp_path / "openai.pt")
    timm = {name.replace("trunk.", "").replace("projection", "head"): v for name, v in tower.state_dict().items()}
    files = {
        "openai": openai,
        "module": {"state_dict": {f"module.{name}": tensor for name, tensor in openai.items()}},
        # Cut out of the state dict of an authors' module, whose names they keep.
        "part": {f"model.{name}": tensor for name, tensor in openai.items()},
        "hugging_face": hugging_face_state(openai),
        "hugging_part": {f"sem.clip.{name}": tensor for name, tensor in hugging_face_state(openai).items()},
        "timm": timm | {"head.bias": torch.zeros(SPEC.embedding)},
    }
    torch.save(files[scheme], tmp_path / "weights.pt")
    other = ClipTower(SPEC).eval()
    fill_backbone(other, tmp_path / "weights.pt")
    expected, inner = plain_forward(openai, image_BCHW)
    with torch.no_grad():
        torch.testing.assert_close(other(image_BCHW), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.stack([*other.inner_class_tokens(image_BCHW)], 1), inner, rtol=1e-4, atol=1e-4)


def test_the_exact_gelu_is_a_flag(image_BCHW, tmp_path):
    torch.save(openai_state(), tmp_path / "weights.pt")
    tower = ClipTower(replace(SPEC, quick_gelu=False)).eval()
    fill_backbone(tower, tmp_path / "weights.pt")
    expected, _ = plain_forward(openai_state(), image_BCHW, quick_gelu=False)
    with torch.no_grad():
        torch.testing.assert_close(tower(image_BCHW), expected, rtol=1e-4, atol=1e-4)
    assert not clip_spec("clip_vit_l14_commonpool").quick_gelu
    assert clip_spec("clip_vit_l14").quick_gelu


def test_a_tower_without_projection_leaves_it_out(image_BCHW, tmp_path):
    torch.save(openai_state(), tmp_path / "weights.pt")
    towers = [ClipTower(SPEC, projected=projected).eval() for projected in (True, False)]
    for tower in towers:
        fill_backbone(tower, tmp_path / "weights.pt")
    with torch.no_grad():
        torch.testing.assert_close(towers[1](image_BCHW), towers[0].class_token(image_BCHW))


def test_hugging_faces_image_encoder_alone_needs_no_outer_name(image_BCHW, tmp_path):
    openai = openai_state()
    state = hugging_face_state(openai)
    alone = {k.replace("vision_model.", "backbone."): v for k, v in state.items() if k.startswith("vision_model.")}
    towers = [ClipTower(SPEC, projected=False).eval() for _ in range(2)]
    for tower, content in zip(towers, (openai, alone), strict=True):
        torch.save(content, tmp_path / "weights.pt")
        fill_backbone(tower, tmp_path / "weights.pt")
    with torch.no_grad():
        torch.testing.assert_close(towers[1](image_BCHW), towers[0](image_BCHW), rtol=0, atol=0)


def test_unknown_keys_are_refused(tmp_path):
    torch.save(openai_state() | {"visual.extra": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"unexpected: visual\.extra"):
        fill_backbone(ClipTower(SPEC), tmp_path / "weights.pt")


def test_a_missing_third_of_an_attention_is_named(tmp_path):
    state = hugging_face_state(openai_state())
    del state["vision_model.encoder.layers.1.self_attn.k_proj.weight"]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"missing: trunk\.blocks\.1\.attn\.qkv\.weight; unexpected: .*q_proj\.weight"
    ):
        fill_backbone(ClipTower(SPEC), tmp_path / "weights.pt")


def test_an_unknown_backbone_is_an_error():
    with pytest.raises(ConfigError, match=r"Unknown CLIP backbone 'clip_vit_l15'.*clip_vit_l14"):
        clip_spec("clip_vit_l15")


def test_a_backbone_without_published_weights_says_so():
    with pytest.raises(ConfigError, match=r"backbone_weights=PATH"):
        fill_backbone(ClipTower(SPEC), "timm")
