from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, ForgeryDetError, SourceError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.safety.models.base import ModelContext
from forgery_det.safety.models.generator import GeneratorModel, GeneratorModelParameters
from synth.api_jobs import KEY
from synth.generating import TOY, begun
from synth.image_server import ImageServer, image_of, moderation_blocked, running_server, status
from synth.images import smooth_image

PICTURE = encode_image(smooth_image(0), "png", None)


def build(folder: Path, generator: Any, paradigm: str = "unknown") -> GeneratorModel:
    context = ModelContext("under test", paradigm, folder, folder / "cache")
    return GeneratorModel(GeneratorModelParameters(generator), context)


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[GeneratorModel]:
    """A program that notes each of its starts before it becomes the toy generator."""
    start = (
        f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); import runpy, sys; "
        f"sys.argv = ['toy', {str(tmp_path / 'log')!r}]; runpy.run_path({str(TOY)!r}, run_name='__main__')"
    )
    given = {
        "name": "toy", "kind": "command", "model": "toy", "paradigm": "gan", "timeout_s": 20.0,
        "command": ["{python}", "-I", "-c", start], "parameters": {"side_px": 8},
    }  # fmt: skip
    model = build(tmp_path, given)
    yield model
    model.close()


def test_outcomes_become_answers(toy: GeneratorModel, tmp_path: Path) -> None:
    made = toy.generate("a fox", seed=3)
    assert (made.outcome, made.kind) == ("made", "image")
    assert decode_image(made.image or b"").image_HWC.shape == (8, 8, 3)
    assert made.provenance["cost_usd"] == 0.0
    assert made.provenance["model_version_returned"] == "toy-1"
    for word, outcome in (("refuse", "refused"), ("block", "blocked"), ("fail", "failed"), ("garbage", "failed")):
        answer = toy.generate(f"{word} this", seed=3)
        assert (answer.outcome, answer.image) == (outcome, None), word
        assert answer.detail, word
    assert toy.generate("a fox", seed=3).image == made.image != toy.generate("a fox", seed=4).image
    # The program is started once for all requests, and nothing that it made is left behind.
    assert (tmp_path / "starts").read_text() == "x"
    assert len(begun(tmp_path / "log")) == 7
    toy.close()
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes().startswith(b"\x89PNG")]
    assert left == []


def test_after_close_it_starts_again(toy: GeneratorModel, tmp_path: Path) -> None:
    first = toy.generate("a fox", seed=3)
    toy.close()
    assert toy.generate("a fox", seed=3).image == first.image
    assert (tmp_path / "starts").read_text() == "xx"


def test_a_picture_goes_to_generators_that_take_one(toy: GeneratorModel, tmp_path: Path) -> None:
    assert toy.generate("a fox", (PICTURE,), seed=3).outcome == "made"
    assert toy.generate("a fox", (PICTURE, PICTURE), seed=3).detail == (
        "Expected at most one picture for generator 'toy', got 2."
    )
    pipeline = {"name": "tti", "kind": "diffusers", "model": "none", "paradigm": "diffusion"}
    assert "which generator 'tti' has no use for" in build(tmp_path, pipeline).generate("a", (PICTURE,), seed=0).detail
    rework = build(tmp_path, pipeline | {"task": "image_to_image", "strength": 0.5})
    answer = rework.generate("a", seed=0)
    assert (answer.outcome, answer.kind) == ("failed", "image")
    assert "got one without" in answer.detail


def test_failures_in_a_row_end_the_run(toy: GeneratorModel) -> None:
    for _ in range(4):
        assert toy.generate("fail", seed=0).outcome == "failed"
    with pytest.raises(SourceError, match=r"Expected answers of model 'under test', got 5 failures in a row"):
        toy.generate("fail", seed=0)


def test_a_card_says_what_a_generator_is(tmp_path: Path) -> None:
    by_name = build(tmp_path, "stable-diffusion-3.5-large")
    by_keys = build(tmp_path, {"name": "stable-diffusion-3.5-large"})
    assert by_name.identity() == by_keys.identity()
    assert by_name.context.paradigm == "diffusion"
    assert build(tmp_path, "stable-diffusion-3.5-large", "mllm").context.paradigm == "mllm"
    assert by_name.version().startswith("diffusers stabilityai/")
    assert by_name.generates
    assert not by_name.understands
    other = build(tmp_path, {"name": "stable-diffusion-3.5-large", "steps": 3})
    assert other.identity() != by_name.identity()


def test_what_is_no_generator_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown generator 'stable-difusion'"):
        GeneratorModelParameters("stable-difusion")
    paint = {"name": "p", "kind": "diffusers", "model": "m", "paradigm": "diffusion", "task": "inpainting"}
    with pytest.raises(ConfigError, match="which reworks images"):
        build(tmp_path, paint)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with running_server() as running:
        yield running


def served(server: ImageServer, **changes: Any) -> dict[str, Any]:
    return {
        "name": "served", "kind": "openai_images", "model": "m", "paradigm": "mllm", "max_attempts": 1,
        "base_url": f"{server.address}/v1", "usd_per_image": 0.04,
    } | changes  # fmt: skip


def test_an_api_is_asked_with_its_price(server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.plan("no", moderation_blocked())
    server.plan("down", status(500))
    model = build(tmp_path, served(server, send_seed=True))
    answers = {prompt: model.generate(prompt, seed=9) for prompt in ("a fox", "no", "down")}
    assert {prompt: answer.outcome for prompt, answer in answers.items()} == {
        "a fox": "made", "no": "blocked", "down": "failed",
    }  # fmt: skip
    assert answers["a fox"].image == image_of("a fox")
    assert answers["a fox"].provenance["cost_usd"] == 0.04
    assert answers["no"].provenance["cost_usd"] == 0.0
    assert server.bodies[0]["seed"] == 9
    assert KEY not in json.dumps([dict(answer.provenance) for answer in answers.values()], default=str)
    assert model.max_concurrency == 4
    # How long one waits decides no image: the walks that were done stay done.
    assert build(tmp_path, served(server, send_seed=True, timeout_s=7.0)).identity() == model.identity()
    assert model.generate("a fox", (PICTURE,), seed=9).outcome == "made"
    assert server.bodies[-1]["image"] == PICTURE


def test_a_missing_key_is_named(server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ForgeryDetError, match="OPENAI_API_KEY"):
        build(tmp_path, served(server)).generate("a fox", seed=1)
