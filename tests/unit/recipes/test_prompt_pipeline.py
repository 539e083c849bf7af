"""FLUX.2's own upsampler, with a text encoder built from a configuration with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgery_det.recipes.prompting.base import TextModelDownError, TextReply, TextRequest
from forgery_det.recipes.prompting.pipeline_upsampler import PipelineUpsampler, PipelineUpsamplerParameters

pytestmark = [
    pytest.mark.slow,  # the pipeline pads to 2,048 tokens and writes 512, whatever the prompt
]
diffusers = pytest.importorskip("diffusers", reason="the extra `generate` is not installed")
transformers = pytest.importorskip("transformers", reason="the extra `generate` is not installed")

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% for c in m.content %}{{ c.text }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture(scope="module")
def flux2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLUX.2 pipeline without the parts that make images."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("flux2")
    words = ["<unk>", "<s>", "</s>", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "a", "red", "fox", "in", "snow"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
        padding_side="left",
    )  # fmt: skip
    processor = transformers.PixtralProcessor(
        transformers.PixtralImageProcessor(), tokenizer, patch_size=14, spatial_merge_size=1, chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    text = transformers.MistralConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
        pad_token_id=2,
    )  # fmt: skip
    vision = transformers.PixtralVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14,
        head_dim=8,
    )  # fmt: skip
    encoder = transformers.Mistral3ForConditionalGeneration(
        transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=3)
    )
    diffusers.Flux2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=None, text_encoder=encoder, tokenizer=processor,
        transformer=None,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _model(folder: Path, **changes: Any) -> PipelineUpsampler:
    given = {"model": str(folder), "dtype": "float32", "device": "cpu"} | changes
    return PipelineUpsampler(PipelineUpsamplerParameters(**given), folder)


def test_the_pipeline_rewrites_a_prompt_by_its_seed(flux2: Path) -> None:
    fox = TextRequest("", "a red fox", 3)
    model = _model(flux2, temperature=0.7)
    ((_, first),) = model.run([fox])
    ((_, again),) = _model(flux2, temperature=0.7).run([fox])
    ((_, other),) = model.run([TextRequest("", "a red fox", 4)])
    assert isinstance(first, TextReply)
    assert first == again
    assert isinstance(other, TextReply)
    assert first.text != other.text
    assert first.model_version.startswith("Flux2Pipeline.upsample_prompt ")


def test_a_pipeline_without_an_upsampler_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    with pytest.raises(
        TextModelDownError, match=r"Expected a pipeline that rewrites prompts .*StableDiffusion3Pipeline"
    ):
        list(_model(tmp_path).run([TextRequest("", "a fox", 0)]))
    with pytest.raises(TextModelDownError, match="Expected a diffusers pipeline at 'nothing'"):
        list(_model(tmp_path, model="nothing").run([TextRequest("", "a fox", 0)]))
