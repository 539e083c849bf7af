"""Tiny judges with random weights, saved to folders: a safety checker, an image classifier and a guard that chats.

Everything is built from configurations and a handful of tokens, so nothing is downloaded. Equal calls give equal files.
"""

from __future__ import annotations

from pathlib import Path

import torch

SIDE_PX = 32


def save_safety_checker(folder: Path, thresholds: float = 0.0) -> Path:
    """Save a StableDiffusionSafetyChecker; all concepts have one threshold, those of special care another."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            vision_config=tower | {"image_size": SIDE_PX, "patch_size": 8, "projection_dim": 8},
            text_config=tower | {"vocab_size": 32, "projection_dim": 8},
            projection_dim=8,
        )
    )
    for name in ("concept_embeds", "special_care_embeds"):
        getattr(checker, name).data.normal_()
    checker.concept_embeds_weights.data.fill_(thresholds)
    checker.special_care_embeds_weights.data.fill_(0.3)
    checker.save_pretrained(folder)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size).save_pretrained(folder)
    return folder


def save_classifier(folder: Path, *, several: bool = False) -> Path:
    """Save a ViT with the labels safe, nudity and violence; `several` makes it one of several labels an image."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIDE_PX,
        patch_size=8, id2label={0: "safe", 1: "nudity", 2: "violence"},
        label2id={"safe": 0, "nudity": 1, "violence": 2},
        problem_type="multi_label_classification" if several else "single_label_classification",
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE_PX, "width": SIDE_PX}).save_pretrained(folder)
    return folder


_TEMPLATE = (
    "{% for m in messages %}{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %} "
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
)


def save_guard(folder: Path, word: str) -> Path:
    """Save a LLaVA that always writes one word: its last norm is 0, so all tokens are equal and the first wins."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [word, "<unk>", "<s>", "</s>", "<image>", "no", "red", "squares", "assistant"]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    text = transformers.LlamaConfig(
        **tower, vocab_size=len(fast), max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=3
    )
    vision = transformers.CLIPVisionConfig(**tower | {"num_hidden_layers": 2}, image_size=SIDE_PX, patch_size=16)
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=names.index("<image>"))
    )
    model.model.language_model.norm.weight.data.zero_()
    model.save_pretrained(folder)
    size = {"height": SIDE_PX, "width": SIDE_PX}
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": SIDE_PX}, crop_size=size), fast, patch_size=16,
        vision_feature_select_strategy="default", chat_template=_TEMPLATE, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder
