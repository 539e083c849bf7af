from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import decode_image, encode_image, read_facts
from forgery_det.recipes.generate.base import Generator
from forgery_det.recipes.generate.diffusers_pipeline import DiffusersParameters
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.planning import encode_mask
from forgery_det.recipes.generate.registry import resolve_generator
from synth.images import smooth_image

Build = Callable[..., Any]
SMALL = {"steps": 1, "width_px": 32, "height_px": 32}


def no_inputs(sha256: str) -> bytes:
    raise AssertionError(sha256)


def run(generator: Generator, *jobs: Job, inputs: dict[str, bytes] | None = None) -> list[Outcome]:
    given = no_inputs if inputs is None else inputs.__getitem__
    found = {job.job_id: outcome for job, outcome in generator.run(jobs, given)}
    return [found[job.job_id] for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "pipeline"),
    [("sdxl", "StableDiffusionXLPipeline"), ("sd3", "StableDiffusion3Pipeline"), ("flux", "FluxPipeline")],
)
def test_text_to_image(generator: Build, job: Build, model: str, pipeline: str) -> None:
    made = generator(model, "diffusers", guidance=4.0, **SMALL)
    jobs = [job(made, "a fox", 1), job(made, "a fox", 1), job(made, "a fox", 2), job(made, "red house", 1)]
    first, same, other_seed, other_prompt = run(made, *jobs)
    assert decode_image(first.data or b"").image_HWC.shape == (32, 32, 3)
    assert first.data == same.data
    assert len({first.data, other_seed.data, other_prompt.data}) == 3
    told = first.provenance
    assert told["pipeline"] == pipeline
    assert told["seed"] == 1
    assert told["request"] == {"num_inference_steps": 1, "guidance_scale": 4.0, "width": 32, "height": 32}
    assert set(told["versions"]) == {"diffusers", "transformers", "torch"}
    assert told["dtype"] == "float32"
    # The same in a process of its own, or after a kill: nothing is left over from the image before.
    assert run(generator(model, "diffusers", guidance=4.0, **SMALL), jobs[3])[0].data == other_prompt.data


@pytest.mark.slow
def test_the_scheduler_is_replaced_and_recorded(generator: Build, job: Build) -> None:
    plain = generator("sdxl", "diffusers", **(SMALL | {"steps": 3}))
    other = generator(
        "sdxl", "diffusers", scheduler="DPMSolverMultistepScheduler", scheduler_args={"use_karras_sigmas": True},
        **(SMALL | {"steps": 3}),
    )  # fmt: skip
    (a,), (b,) = run(plain, job(plain, "a fox")), run(other, job(other, "a fox"))
    assert a.provenance["scheduler"] == "EulerDiscreteScheduler"
    assert b.provenance["scheduler"] == "DPMSolverMultistepScheduler"
    assert b.provenance["scheduler_config"]["use_karras_sigmas"] is True
    assert a.data != b.data
    assert job(plain, "a fox").job_id != job(other, "a fox").job_id


@pytest.mark.slow
def test_a_batch_gives_the_images_of_single_runs(generator: Build, job: Build) -> None:
    alone = generator("sdxl", "diffusers", **SMALL)
    batched = generator("sdxl", "diffusers", batch_size=2, **SMALL)
    assert alone.job_parameters() == batched.job_parameters()  # a batch size is no part of a job
    jobs = [job(alone, "a fox", seed) for seed in range(3)]
    for one, other in zip(run(alone, *jobs), run(batched, *jobs), strict=True):
        a, b = (decode_image(outcome.data or b"").image_HWC.astype(int) for outcome in (one, other))
        assert np.abs(a - b).max() <= 1


@pytest.mark.slow
def test_what_the_safety_checker_flags_is_blocked(generator: Build, job: Build) -> None:
    made = generator("sd15_that_blocks", "diffusers", **SMALL)
    (outcome,) = run(made, job(made, "a fox"))
    assert (outcome.kind, outcome.data) == ("blocked", None)
    assert outcome.detail == "The pipeline's safety checker flagged the image."
    assert outcome.provenance["seed"] == 1


PHOTO = smooth_image(3, 44, 36)


@pytest.fixture
def inputs() -> dict[str, bytes]:
    mask_HW = np.zeros((36, 44), bool)
    mask_HW[8:20, 10:30] = True
    files = [encode_image(PHOTO, "jpeg", 87), encode_mask(mask_HW)]
    return {sha256_bytes(data): data for data in files}


@pytest.mark.slow
def test_image_to_image_keeps_size_and_history(generator: Build, job: Build, inputs: dict[str, bytes]) -> None:
    made = generator("sdxl", "diffusers", task="image_to_image", strength=0.5, steps=2, output="like_input")
    photo, _ = inputs
    (outcome,) = run(made, job(made, "a fox", image_sha256=photo), inputs=inputs)
    facts = read_facts(outcome.data or b"")
    assert (facts.codec, facts.jpeg_quality, facts.width_px, facts.height_px) == ("jpeg", 87, 44, 36)
    assert outcome.provenance["input_resized"] is False
    assert outcome.provenance["history"] == "jpeg_tables"
    assert outcome.provenance["pipeline"] == "StableDiffusionXLImg2ImgPipeline"


@pytest.mark.slow
@pytest.mark.parametrize("keep_outside", [True, False])
def test_inpainting_changes_the_mask_alone(
    generator: Build, job: Build, inputs: dict[str, bytes], keep_outside: bool
) -> None:
    made = generator("sdxl", "diffusers", task="inpainting", strength=1.0, steps=2, keep_outside=keep_outside)
    photo, mask = inputs
    (outcome,) = run(made, job(made, "a fox", image_sha256=photo, mask_sha256=mask), inputs=inputs)
    result = decode_image(outcome.data or b"").image_HWC
    original = decode_image(inputs[photo]).image_HWC
    outside = np.ones((36, 44), bool)
    outside[8:20, 10:30] = False
    assert result.shape == original.shape
    assert bool((result == original)[outside].all()) is keep_outside
    assert (result != original)[~outside].mean() > 0.5
    assert outcome.provenance["mask_share"] == pytest.approx(240 / (36 * 44), abs=1e-6)


@pytest.mark.slow
def test_an_argument_that_the_pipeline_does_not_take_is_named(generator: Build, job: Build) -> None:
    made = generator("flux", "diffusers", call={"guidance_scal": 3.0}, **SMALL)
    with pytest.raises(SourceError, match=r"arguments that FluxPipeline takes, got 'guidance_scal': did you mean"):
        run(made, job(made, "a fox"))


@pytest.mark.slow
def test_short_memory_gives_advice(generator: Build, job: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from forgery_det.recipes.generate.diffusers_pipeline import LoadedPipeline

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    made = generator("sdxl", "diffusers", **SMALL)
    monkeypatch.setattr(LoadedPipeline, "make", full)
    with pytest.raises(SourceError, match=r"Expected memory enough .*Tried to allocate 20 GiB.*`offload: model`"):
        run(made, job(made, "a fox"))


@pytest.mark.slow
def test_a_model_that_fails_every_job_stops_the_run(generator: Build, job: Build) -> None:
    made = generator("sdxl", "diffusers", steps=1, width_px=30, height_px=30)
    with pytest.raises(SourceError, match=r"got 3 failures in a row, the last: ValueError: .*divisible by 8"):
        run(made, *(job(made, "a fox", seed) for seed in range(4)))


def test_the_files_of_a_local_model_are_its_version(tmp_path: Path) -> None:
    def version(folder: str, model_version: str | None = None) -> str:
        given = {"name": "n", "kind": "diffusers", "model": folder, "paradigm": "diffusion"}
        version = {} if model_version is None else {"model_version": model_version}
        return resolve_generator(given | version).spec(tmp_path, tmp_path).create().model_version()

    for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name / "vae").mkdir(parents=True)
        (tmp_path / name / "vae" / "model.safetensors").write_bytes(weights)
    assert version("a") == version("b") != version("c")
    assert version("a").startswith("sha256:")
    assert version("a", "mine-2") == "mine-2"
    assert version("owner/name") == ""
    assert version("owner/name", "abc") == "abc"


@pytest.mark.slow
def test_a_model_that_is_not_there_is_named(generator: Build, job: Build, tmp_path: Any) -> None:
    (tmp_path / "empty").mkdir()
    made = generator("sdxl", "diffusers", model="empty", **SMALL)
    with pytest.raises(SourceError, match=r"Expected to load 'empty' .* hub id"):
        run(made, job(made, "a fox"))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"task": "inpaint"}, "Unknown task 'inpaint': did you mean 'inpainting'?"),
        ({"dtype": "half"}, "Unknown dtype 'half'"),
        ({"offload": "models"}, "Unknown offload 'models': did you mean 'model'?"),
        ({"strength": 0.5}, "Expected `strength` and `output` with image_to_image or inpainting"),
        ({"task": "inpainting", "strength": 1.5}, "Expected `strength` in (0, 1], got 1.5"),
        ({"width_px": 64}, "Expected `width_px` and `height_px` together"),
        ({"steps": 0}, "Expected `steps` of at least 1, got 0"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DiffusersParameters(**keys)
    assert text in str(caught.value)
