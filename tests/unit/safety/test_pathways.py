"""The four ways through a model, hop by hop, with a model that answers from a script and writes down what it is fed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from forgery_det.safety.models.base import ModelContext, UnifiedModel
from forgery_det.safety.pathways import Instructions, walk
from forgery_det.safety.types import Answer, OutcomeKind, Pathway, SafetyPrompt

PROMPT = SafetyPrompt("p0", "a fox")
PICTURED = SafetyPrompt("p1", "a fox", image=b"the prompt's picture")
TOLD = Answer("made", "text", text="a red fox in snow")
DRAWN = Answer("made", "image", image=b"drawn")
INSTRUCTIONS = Instructions(describe="Describe {prompt}, all of {prompt}.", read="What is this, asked for as {prompt}?")


class Scripted(UnifiedModel):
    Parameters = dict
    understands = generates = True

    def __init__(self, told: Answer = TOLD, drawn: Answer = DRAWN) -> None:
        super().__init__({}, ModelContext("scripted", "mllm", Path(), Path()))
        self.told, self.drawn = told, drawn
        self.calls: list[tuple[Any, ...]] = []

    def understand(self, images: Sequence[bytes], text: str, *, seed: int) -> Answer:
        self.calls.append(("understand", tuple(images), text, seed))
        return self.told

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:
        self.calls.append(("generate", tuple(images), text, seed))
        return self.drawn


def hops(model: UnifiedModel, pathway: Pathway, prompt: SafetyPrompt = PROMPT) -> list[tuple[str, Answer]]:
    found = walk(model, pathway, prompt, seed=7, instructions=INSTRUCTIONS)
    assert found[0].answer.text == "a fox"
    assert found[0].answer.outcome == "made"
    return [(hop.hop, hop.answer) for hop in found[1:]]


def test_isolated_functions_are_asked_once() -> None:
    model = Scripted()
    assert hops(model, "generation") == [("output", DRAWN)]
    assert hops(model, "understanding") == [("output", TOLD)]
    assert model.calls == [("generate", (), "a fox", 7), ("understand", (), "a fox", 7)]


def test_the_models_own_text_feeds_its_generator() -> None:
    model = Scripted()
    assert hops(model, "understanding_generation") == [("intermediate", TOLD), ("output", DRAWN)]
    assert model.calls == [
        ("understand", (), "Describe a fox, all of a fox.", 7),
        ("generate", (), "a red fox in snow", 7),
    ]


def test_the_models_own_picture_feeds_its_reading() -> None:
    model = Scripted()
    assert hops(model, "generation_understanding") == [("intermediate", DRAWN), ("output", TOLD)]
    assert model.calls == [
        ("generate", (), "a fox", 7),
        ("understand", (b"drawn",), "What is this, asked for as a fox?", 7),
    ]


def test_a_prompts_picture_is_shown_to_the_first_function_alone() -> None:
    seen = {}
    for pathway in ("generation", "understanding", "understanding_generation", "generation_understanding"):
        model = Scripted()
        hops(model, pathway, PICTURED)  # type: ignore[arg-type]
        seen[pathway] = [call[1] for call in model.calls]
    own = (b"the prompt's picture",)
    assert seen == {
        "generation": [own],
        "understanding": [own],
        "understanding_generation": [own, ()],
        "generation_understanding": [own, (b"drawn",)],
    }


@pytest.mark.parametrize("outcome", ["refused", "blocked", "failed"])
def test_a_walk_ends_where_nothing_is_made(outcome: OutcomeKind) -> None:
    no_text = Answer(outcome, "text", detail="no")
    model = Scripted(told=no_text)
    assert hops(model, "understanding_generation") == [("intermediate", no_text)]
    assert [call[0] for call in model.calls] == ["understand"]
    no_image = Answer(outcome, "image", detail="no")
    model = Scripted(drawn=no_image)
    assert hops(model, "generation_understanding") == [("intermediate", no_image)]
    assert [call[0] for call in model.calls] == ["generate"]
    assert hops(model, "generation") == [("output", no_image)]


def test_an_empty_description_is_not_drawn() -> None:
    model = Scripted(told=Answer("made", "text", text=""))
    assert [hop for hop, _ in hops(model, "understanding_generation")] == ["intermediate"]
    assert [call[0] for call in model.calls] == ["understand"]


@pytest.mark.parametrize(
    ("understands", "generates", "expected"),
    [(True, False, {"understanding"}), (False, True, {"generation"}), (False, False, set())],
)
def test_which_pathways_a_model_can_walk(understands: bool, generates: bool, expected: set[str]) -> None:
    model = Scripted()
    ways: tuple[Pathway, ...] = (
        "generation", "understanding", "understanding_generation", "generation_understanding",
    )  # fmt: skip
    assert all(model.can_walk(way) for way in ways)
    model.understands, model.generates = understands, generates
    assert {way for way in ways if model.can_walk(way)} == expected
