from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import decode_image
from forgery_det.recipes.generate.base import Generator
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.transformers_unified import TransformersParameters, _emu3_grammar

Build = Callable[..., Any]
MODELS: dict[str, dict[str, Any]] = {"janus": {}, "emu3": {"image_area_px": 32 * 32}}
SIDES = {"janus": 16, "emu3": 32}
CLASSES = {"janus": "JanusForConditionalGeneration", "emu3": "Emu3ForConditionalGeneration"}


def run(generator: Generator, *jobs: Job) -> list[Outcome]:
    found = {job.job_id: outcome for job, outcome in generator.run(jobs, lambda _sha256: b"")}
    assert {outcome.kind for outcome in found.values()} == {"image"}, found
    return [found[job.job_id] for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_text_to_image(generator: Build, job: Build, model: str) -> None:
    made = generator(model, "transformers", guidance=3.0, **MODELS[model])
    state = torch.random.get_rng_state()
    jobs = [job(made, "a red fox", 1), job(made, "a red fox", 2), job(made, "the house in snow", 1)]
    first, other_seed, other_prompt = run(made, *jobs)
    assert decode_image(first.data or b"").image_HWC.shape == (SIDES[model], SIDES[model], 3)
    assert len({first.data, other_seed.data, other_prompt.data}) == 3
    assert first.provenance["model_class"] == CLASSES[model]
    assert first.provenance["request"]["guidance_scale"] == 3.0
    # Torch's generator is put back, and a later run finds it in whatever state: the image is the same.
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert run(generator(model, "transformers", guidance=3.0, **MODELS[model]), jobs[2])[0].data == other_prompt.data


@pytest.mark.slow
def test_guidance_and_temperature_decide(generator: Build, job: Build) -> None:
    images = set()
    for keys in ({"guidance": 1.0}, {"guidance": 6.0}, {"temperature": 0.0}, {"top_k": 2}):
        made = generator("janus", "transformers", **keys)
        (outcome,) = run(made, job(made, "a red fox"))
        images.add(outcome.data)
    assert len(images) == 4
    greedy = generator("janus", "transformers", temperature=0.0)
    one, two = run(greedy, job(greedy, "a red fox", 1), job(greedy, "a red fox", 2))
    assert one.data == two.data  # the likeliest token needs no seed


@pytest.mark.slow
def test_emu3_heeds_ratio_and_negative_prompt(generator: Build, job: Build) -> None:
    wide = generator("emu3", "transformers", image_area_px=2 * 32 * 32, ratio="2:1", guidance=3.0)
    (outcome,) = run(wide, job(wide, "a red fox"))
    assert decode_image(outcome.data or b"").image_HWC.shape == (32, 64, 3)
    assert outcome.provenance["request"]["token_grid"] == [8, 4]
    other = generator("emu3", "transformers", image_area_px=32 * 32, guidance=3.0, negative_prompt="snow")
    plain = generator("emu3", "transformers", image_area_px=32 * 32, guidance=3.0)
    assert run(other, job(other, "a red fox"))[0].data != run(plain, job(plain, "a red fox"))[0].data


@pytest.mark.slow
def test_what_janus_lacks_is_an_error(generator: Build, job: Build) -> None:
    made = generator("janus", "transformers", image_area_px=64)
    with pytest.raises(SourceError, match="with Janus, which has neither"):
        run(made, job(made, "a red fox"))


@pytest.mark.slow
def test_a_model_that_makes_no_images_is_named(generator: Build, job: Build, tmp_path: Any) -> None:
    from transformers import LlamaConfig

    LlamaConfig().save_pretrained(tmp_path / "llama")
    made = generator("janus", "transformers", model="llama")
    with pytest.raises(SourceError, match=r"transformers makes images with, got 'llama': Known: emu3, janus"):
        run(made, job(made, "a red fox"))


class _Tokenizer:
    eof_token, eoi_token, eos_token = "eof", "eoi", "eos"

    def convert_tokens_to_ids(self, name: str) -> int:
        return {"eof": 101, "eoi": 102, "eos": 103, "<|extra_200|>": 100}[name]


def test_the_grammar_of_emu3_is_rows_of_tokens_and_an_end() -> None:
    allowed = _emu3_grammar(_Tokenizer(), [7, 8], start=5, height=2, width=3)
    steps = [allowed(0, torch.zeros(5 + position)) for position in range(2 * 4 + 3)]
    row = [[7, 8]] * 3 + [[100]]
    assert steps == [*row, *row, [101], [102], [103]]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"guidance": 0.5}, "Expected `guidance` of at least 1"),
        ({"ratio": "wide"}, "Expected `ratio` as two whole numbers such as '4:3', got 'wide'"),
        ({"dtype": "fp8"}, "Unknown dtype 'fp8'"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TransformersParameters(**keys)
    assert text in str(caught.value)
