from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.base import Generator
from forgery_det.recipes.generate.registry import (
    CARDS_PATH,
    GENERATORS,
    GeneratorCard,
    generator_cards,
    resolve_generator,
)
from forgery_det.recipes.schema import parse_section, read_yaml

CARDS = generator_cards()
OF_THE_ISSUE = (
    "stable-diffusion-3.5-large", "stable-diffusion-3.5-large-turbo", "stable-diffusion-xl-base-1.0",
    "stable-diffusion-1.5", "flux.1-dev", "flux.1-schnell", "flux.2-dev", "qwen-image", "z-image", "pixart-sigma",
    "lumina-image-2.0", "kandinsky-2.2", "hidream-i1-full", "bagel-7b-mot", "janus-1.3b", "janus-pro-1b",
    "janus-pro-7b", "tokenflow-t2i", "vila-u-7b-256", "emu3-gen", "show-o2-7b", "blip3o-8b", "omnigen2",
    "hunyuanimage-3.0", "gpt-image-1", "gpt-image-1.5", "gemini-2.5-flash-image", "seedream-4.0",
)  # fmt: skip


def test_every_generator_of_the_studies_has_a_card() -> None:
    assert [name for name in OF_THE_ISSUE if name not in CARDS] == []


@pytest.mark.parametrize("name", CARDS)
def test_a_card_says_what_it_knows_and_what_it_does_not(name: str) -> None:
    card = CARDS[name]
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)
    known = {field.name for field in fields(GeneratorCard)}
    assert set(card.unverified) <= known
    assert all(address.startswith("https://") for address in card.sources.values())
    # A stated fact has an address, is marked as unchecked, or the card says in words what is missing.
    for fact in ("release_date", "licence"):
        stated = getattr(card, fact) is not None
        assert stated or card.notes, (name, fact)
    if card.kind in ("diffusers", "transformers", "reconstruct", "command"):
        for fact in ("release_date", "licence"):
            if getattr(card, fact) is not None:
                assert fact in card.sources or fact in card.unverified, (name, fact)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_can_be_named_in_a_recipe(name: str, tmp_path: Path) -> None:
    extra = {"command": ["true"]} if CARDS[name].kind == "command" else {}
    resolved = resolve_generator({"name": name} | extra)
    assert resolved.fields["generator"] == name
    assert resolved.fields["paradigm"] == CARDS[name].paradigm
    made = resolved.spec(tmp_path, tmp_path).create()
    assert isinstance(made, Generator)
    assert made.context.model == CARDS[name].model


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_kind_says_its_parameters_without_loading_models(kind: str) -> None:
    generator = GENERATORS.get(kind)
    assert issubclass(generator, Generator)
    assert "__dataclass_fields__" in vars(generator.Parameters)


def test_the_recipe_overrules_the_card() -> None:
    resolved = resolve_generator({"name": "stable-diffusion-3.5-large-turbo", "steps": 8, "model": "./copy"})
    assert (resolved.parameters.steps, resolved.parameters.guidance) == (8, 0.0)
    assert resolved.model == "./copy"


def test_another_door_leaves_the_parameters_of_the_card_behind() -> None:
    served = resolve_generator({"name": "qwen-image", "kind": "openai_images", "base_url": "http://127.0.0.1:9/v1"})
    assert served.kind == "openai_images"
    assert served.fields["decoder"] == "vae"


def test_importing_the_kinds_loads_no_model_library() -> None:
    # diffusers takes seconds to import; a recipe is parsed without it.
    sources = [Path(CARDS_PATH).with_name(name) for name in ("diffusers_pipeline.py", "reconstruct.py")]
    for source in sources:
        top = source.read_text().split("\n\n\n")[0]
        assert not re.search(r"^(import|from) (torch|diffusers|transformers)", top, re.MULTILINE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"name": "stable-diffusion-3.5-larg"}, "did you mean 'stable-diffusion-3.5-large'"),
        ({"name": "mine", "kind": "diffusers", "model": "a/b"}, "needs `kind`, `model` and `paradigm`"),
        ({"name": "mine", "kind": "diffuser", "model": "a/b", "paradigm": "gan"}, "did you mean 'diffusers'?"),
        ({"name": "mine", "kind": "diffusers", "model": "a/b", "paradigm": "gna"}, "did you mean 'gan'?"),
        ({"name": "qwen-image", "stepps": 3}, "Unknown key 'stepps' (generator): did you mean 'steps'?"),
        ({"kind": "diffusers"}, "Expected a mapping with the key 'name'"),
        ("qwen-image", "Expected a mapping with the key 'name'"),
    ],
)
def test_mistakes_are_named(value: Any, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_generator(value)
    assert text in str(caught.value)


def test_a_card_with_an_unknown_word_is_an_error() -> None:
    card = {"kind": "diffusers", "model": "a/b", "paradigm": "diffusion", "decoder": "vea"}
    with pytest.raises(ConfigError, match=r"Unknown decoder 'vea': did you mean 'vae'"):
        parse_section(GeneratorCard, card, "cards.yaml: x")


def test_cards_stand_once() -> None:
    assert set(read_yaml(CARDS_PATH)) == set(CARDS)
