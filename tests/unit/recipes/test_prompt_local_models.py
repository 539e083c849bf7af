"""Local models, built from configurations with random weights: the code paths are real, the texts are noise."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import encode_image
from forgery_det.recipes.prompt_sets import ContentImage
from forgery_det.recipes.prompting.base import TextFailure, TextModelDownError, TextReply, TextRequest
from forgery_det.recipes.prompting.clip_tokens import token_counter
from forgery_det.recipes.prompting.local_text import TransformersText, TransformersTextParameters
from forgery_det.recipes.prompting.local_vision import TransformersVision, TransformersVisionParameters
from synth.images import smooth_image

transformers = pytest.importorskip("transformers", reason="the extra `generate` is not installed")

WORDS = ["a", "red", "fox", "cup", "on", "the", "table", "snow", "make", "it", "longer", "system", "user", "assistant"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def word_tokenizer(template: str | None = TEMPLATE, extra: tuple[str, ...] = ()) -> Any:
    """A tokenizer of a dozen words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<unk>", "<s>", "</s>", *extra]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=template,
        extra_special_tokens={"image_token": extra[0]} if extra else {},
    )


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of two layers."""
    import torch

    folder = tmp_path_factory.mktemp("text-model")
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _text(folder: Path, **changes: Any) -> TransformersText:
    given = {"model": str(folder), "dtype": "float32", "device": "cpu", "max_tokens": 8} | changes
    return TransformersText(TransformersTextParameters(**given), folder)


def _ask(model: Any, *requests: TextRequest) -> list[TextReply]:
    replies = [reply for _, reply in model.run(requests)]
    assert all(isinstance(reply, TextReply) for reply in replies)
    return replies  # type: ignore[return-value]


FOX, CUP = TextRequest("make it longer", "a red fox", 3), TextRequest("make it longer", "the cup", 3)


def test_a_language_model_writes_the_same_text_again_and_in_any_company(text_model: Path) -> None:
    fox, cup = _ask(_text(text_model), FOX, CUP)
    assert fox.text
    assert set(fox.text.split()) <= {*WORDS, "<unk>"}
    assert _ask(_text(text_model), CUP, FOX) == [cup, fox]
    # system make it longer user a red fox assistant
    assert fox.usage["prompt_tokens"] == 9
    assert fox.usage["completion_tokens"] <= 8
    assert fox.finish == ("length" if fox.usage["completion_tokens"] == 8 else "stop")


def test_sampling_follows_the_seed_and_leaves_the_global_one_alone(text_model: Path) -> None:
    import torch

    model = _text(text_model, temperature=5.0)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again = _ask(model, FOX), _ask(model, FOX)
    assert first == again
    assert torch.equal(torch.random.get_rng_state(), before)
    others = {_ask(model, TextRequest(FOX.instruction, FOX.text, seed))[0].text for seed in range(6)}
    assert len(others) > 1


def test_a_template_without_a_system_role_gets_the_instruction_in_the_users_turn(text_model: Path) -> None:
    model = _text(text_model)
    tokenizer, _ = model._loaded
    tokenizer.chat_template = NO_SYSTEM
    ids = model._inputs(FOX)["input_ids"][0]
    assert tokenizer.decode(ids) == "user make it longer a red fox assistant"


def test_what_is_no_chat_model_is_named(text_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TextModelDownError, match=r"Expected a language model at .*nothing"):
        _ask(_text(tmp_path, model=str(tmp_path / "nothing")), FOX)
    model = _text(text_model)
    word_tokenizer(None).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").symlink_to(text_model / "model.safetensors")
    (tmp_path / "config.json").symlink_to(text_model / "config.json")
    with pytest.raises(TextModelDownError, match="Expected a model with a chat template, got none"):
        _ask(_text(tmp_path), FOX)
    assert model.identity()["model"] == str(text_model)
    assert "device" not in model.identity()
    with pytest.raises(ConfigError, match="Unknown dtype 'half'"):
        TransformersTextParameters("m", dtype="half")


def test_a_finished_set_loads_no_weights(tmp_path: Path) -> None:
    assert list(_text(tmp_path, model="nothing/here").run([])) == []


@pytest.fixture(scope="session")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner of the GIT kind, which takes an image and no instruction."""
    import torch

    folder = tmp_path_factory.mktemp("captioner")
    tokenizer = word_tokenizer(None)
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    config = transformers.GitConfig(
        vision_config=vision, vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, bos_token_id=1, eos_token_id=2, pad_token_id=2, max_position_embeddings=64,
    )  # fmt: skip
    transformers.GitForCausalLM(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.GitProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def _photo(folder: Path, seed: int = 0) -> ContentImage:
    path = folder / f"{seed}.webp"
    path.write_bytes(encode_image(smooth_image(seed, 64, 48), "webp", 90))
    return ContentImage(path.name, "c", "s", f"{seed:064d}", path)


def test_a_captioner_describes_an_image(captioner: Path, tmp_path: Path) -> None:
    given = {"model": str(captioner), "dtype": "float32", "device": "cpu", "max_tokens": 6, "chat": False}
    model = TransformersVision(TransformersVisionParameters(**given), tmp_path)
    requests = [TextRequest("", "", 0, _photo(tmp_path, seed)) for seed in range(2)]
    replies = _ask(model, *requests)
    assert all(set(reply.text.split()) <= {*WORDS, "<unk>"} for reply in replies)
    assert _ask(model, requests[1]) == [replies[1]]
    assert 1 <= replies[0].usage["completion_tokens"] <= 7
    (tmp_path / "0.webp").unlink()
    ((_, failed),) = model.run(requests[:1])
    assert isinstance(failed, TextFailure)
    assert failed.reason == "expansion_failed"
    assert not TransformersVision.takes_instruction(TransformersVisionParameters("m", chat=False))
    with pytest.raises(TextModelDownError, match="`chat: false` is for captioners"):
        _ask(TransformersVision(TransformersVisionParameters(**given | {"chat": True}), tmp_path), requests[1])


@pytest.fixture(scope="session")
def vision_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision-language model of the LLaVA kind, which takes an image and an instruction."""
    import torch

    folder = tmp_path_factory.mktemp("vision-chat")
    tokenizer = word_tokenizer(extra=("<image>",))
    torch.manual_seed(0)
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>")
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.LlavaProcessor(
        images, tokenizer, patch_size=16, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_vision_language_model_is_told_what_to_do_with_an_image(vision_chat: Path, tmp_path: Path) -> None:
    given = {"model": str(vision_chat), "dtype": "float32", "device": "cpu", "max_tokens": 6}
    model = TransformersVision(TransformersVisionParameters(**given), tmp_path)
    photo = _photo(tmp_path)
    (reply,) = _ask(model, TextRequest("make it longer", "", 0, photo))
    # user, four image tokens, make it longer, assistant
    assert reply.usage["prompt_tokens"] == 1 + 4 + 3 + 1
    assert set(reply.text.split()) <= {*WORDS, "<unk>"}
    assert _ask(model, TextRequest("make it longer", "", 0, photo)) == [reply]


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP tokenizer with a vocabulary of letters and one merge, `th`."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "th", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\n")
    return folder


def test_clip_tokens_are_counted_with_their_marks_and_beyond_77(
    clip_tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = token_counter(clip_tokenizer.name, clip_tokenizer.parent)
    # Without merges each letter is a token, so that a text is its letters and two marks; `th` is one.
    assert count("a fox") == 4 + 2
    assert count("A  FOX") == 4 + 2
    assert count("the") == 2 + 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count("fox " * 100) == 300 + 2
    # The hub is asked for what is no folder; without a network its client would try for minutes.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"Expected a CLIP tokenizer at 'nothing', got .*null counts none"):
        token_counter("nothing", clip_tokenizer)
