"""Tiny generators with random weights, saved to folders: real pipelines of diffusers, Janus and Emu3 of transformers.

Everything is built from configurations and a handful of tokens, so nothing is downloaded. Equal calls give equal files.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

_WORDS = ("a", "fox", "in", "the", "snow", "red", "house", "of")
_LATENT = 4


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    names = ["<|startoftext|>", "<|endoftext|>", *string.printable[:68], *(f"{c}</w>" for c in string.printable[:68])]
    return CLIPTokenizer({name: index for index, name in enumerate(names)}, [], model_max_length=77)


def _t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in _WORDS), *string.ascii_lowercase]
    vocab = [(piece, -float(index)) for index, piece in enumerate(pieces)]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=32)


def _clip_config(projection: int | None = None) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=256, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=projection or 16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        hidden_act="gelu",
    )  # fmt: skip


def _t5_encoder(width: int = 16) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gelu"
    )
    return T5EncoderModel(config).eval()


def tiny_vae(latent_channels: int = _LATENT, **changes: Any) -> Any:
    """An AutoencoderKL that shrinks by 8, as the real ones do."""
    from diffusers import AutoencoderKL

    settings: dict[str, Any] = {
        "block_out_channels": (4, 4, 4, 4),
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": latent_channels,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_size": 32,
    }
    return AutoencoderKL(**(settings | changes)).eval()


def save_vae(folder: Path) -> Path:
    """Save a tiny AutoencoderKL."""
    torch.manual_seed(0)
    tiny_vae().save_pretrained(folder)
    return folder


def save_sdxl(folder: Path) -> Path:
    """Save a tiny StableDiffusionXLPipeline."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=_LATENT, out_channels=_LATENT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, transformer_layers_per_block=(1, 1), projection_class_embeddings_input_dim=64,
        cross_attention_dim=32, norm_num_groups=2,
    ).eval()  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    StableDiffusionXLPipeline(
        vae=tiny_vae(), text_encoder=CLIPTextModel(_clip_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config(16)).eval(), tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(), unet=unet, scheduler=scheduler,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_sd3(folder: Path) -> Path:
    """Save a tiny StableDiffusion3Pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=_LATENT, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=_LATENT,
        pos_embed_max_size=16,
    ).eval()  # fmt: skip
    encoders = [CLIPTextModelWithProjection(_clip_config(16)).eval() for _ in range(2)]
    StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=tiny_vae(shift_factor=0.06),
        text_encoder=encoders[0], tokenizer=_clip_tokenizer(), text_encoder_2=encoders[1],
        tokenizer_2=_clip_tokenizer(), text_encoder_3=_t5_encoder(32), tokenizer_3=_t5_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_flux(folder: Path) -> Path:
    """Save a tiny FluxPipeline, with CLIP and T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4 * _LATENT, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    ).eval()  # fmt: skip
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=tiny_vae(shift_factor=0.06),
        text_encoder=CLIPTextModel(_clip_config()).eval(), tokenizer=_clip_tokenizer(), text_encoder_2=_t5_encoder(),
        tokenizer_2=_t5_tokenizer(), transformer=transformer,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _word_tokenizer(extra: dict[str, str], more: tuple[str, ...] = (), **names: str) -> Any:
    """A tokenizer of whole words; `extra` are special tokens by the name of their attribute."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [*names.values(), *extra.values(), *more]
    vocab = {token: index for index, token in enumerate([*special, *_WORDS, *string.digits, "*"])}
    core = Tokenizer(models.WordLevel(vocab, unk_token=names["pad_token"]))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    core.add_special_tokens([*special])
    return PreTrainedTokenizerFast(tokenizer_object=core, extra_special_tokens=extra, **names)


def save_janus(folder: Path) -> Path:
    """Save a tiny JanusForConditionalGeneration with its processor: 8 x 8 tokens, 16 px."""
    from transformers import (
        GenerationConfig,
        JanusConfig,
        JanusForConditionalGeneration,
        JanusImageProcessor,
        JanusProcessor,
    )

    torch.manual_seed(0)
    tokens = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _word_tokenizer(tokens, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    text = {
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "initializer_range": 0.5,
    }  # fmt: skip
    vision = {
        "image_size": 16, "patch_size": 2, "num_image_tokens": 64, "hidden_size": 32, "projection_dim": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 1,
    }  # fmt: skip
    vq = {
        "embed_dim": 8, "num_embeddings": 12, "latent_channels": 8, "base_channels": 32, "channel_multiplier": [1, 1],
        "num_res_blocks": 1, "projection_dim": 32, "image_token_embed_dim": 32,
    }  # fmt: skip
    config = JanusConfig(text_config=text, vision_config=vision, vq_config=vq, image_token_id=3)
    model = JanusForConditionalGeneration(config).eval()
    settings = GenerationConfig(pad_token_id=0, bos_token_id=1, eos_token_id=2, max_length=256)
    settings.generation_kwargs = {"boi_token_id": 4}
    model.generation_config = settings
    model.save_pretrained(folder)
    images = JanusImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    JanusProcessor(images, tokenizer, num_image_tokens=64).save_pretrained(folder)
    return folder


def save_emu3(folder: Path) -> Path:
    """Save a tiny Emu3ForConditionalGeneration with its processor: 8 px a token."""
    from transformers import Emu3Config, Emu3ForConditionalGeneration, Emu3ImageProcessor, Emu3Processor

    torch.manual_seed(0)
    tokens = {
        "image_token": "<image>", "boi_token": "<|image start|>", "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>", "eof_token": "<|extra_201|>",
    }  # fmt: skip
    visual = tuple(f"<|visual token {index:06d}|>" for index in range(16))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = _word_tokenizer(tokens, ("<|extra_200|>", *visual), **names)
    vocab = tokenizer.get_vocab()
    text = {
        "vocab_size": len(vocab), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 256, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.5,
    }  # fmt: skip
    vq = {
        "codebook_size": 16, "temporal_downsample_factor": 1, "base_channels": 32, "channel_multiplier": [1, 1, 1, 1],
        "num_res_blocks": 1, "hidden_size": 32, "attn_resolutions": [],
    }  # fmt: skip
    model = Emu3ForConditionalGeneration(Emu3Config(text_config=text, vq_config=vq, vocabulary_map=vocab)).eval()
    model.save_pretrained(folder)
    Emu3Processor(Emu3ImageProcessor(), tokenizer).save_pretrained(folder)
    return folder


def save_sd15_that_blocks(folder: Path) -> Path:
    """Save a tiny StableDiffusionPipeline whose safety checker finds something in every image."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=_LATENT, out_channels=_LATENT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, cross_attention_dim=16, norm_num_groups=2,
    ).eval()  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16)).eval()
    # A cosine is never below the threshold of -2, so every concept is found.
    checker.concept_embeds_weights.fill_(-2.0)
    size = {"height": 32, "width": 32}
    StableDiffusionPipeline(
        vae=tiny_vae(), text_encoder=CLIPTextModel(_clip_config()).eval(), tokenizer=_clip_tokenizer(), unet=unet,
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1), safety_checker=checker,
        feature_extractor=CLIPImageProcessor(crop_size=size, size={"shortest_edge": 32}),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_vq(folder: Path) -> Path:
    """Save a tiny VQModel that shrinks by 2."""
    from diffusers import VQModel

    torch.manual_seed(0)
    VQModel(
        block_out_channels=(8, 8), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3, num_vq_embeddings=16,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_taesd(folder: Path) -> Path:
    """Save a tiny AutoencoderTiny."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    ).save_pretrained(folder)  # fmt: skip
    return folder
