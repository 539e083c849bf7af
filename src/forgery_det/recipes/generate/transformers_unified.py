"""Unified models that transformers ships natively and that make images: Janus, Janus-Pro, Emu3.

Both write an image as a sequence of codebook entries that a VQ decoder turns into pixels:

- Janus (arXiv 2410.13848) samples a fixed number of tokens from a head of its own, with classifier-free guidance
  `l = u + g (c - u)` between the logits with and without the prompt.
- Emu3 (arXiv 2409.18869) writes them with its ordinary head, row by row. A constraint on each position keeps the
  sequence an image: `w` visual tokens and an end of line, `h` times, then end of frame, end of image, end of text.

Tokens are sampled from torch's global generator, which is seeded anew for every image and put back afterwards.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import encode_image
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.generate.base import INCIDENTAL, Generator, GeneratorContext, Inputs
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.local_model import (
    Failures,
    check_model_keys,
    commit_of,
    device_name,
    json_values,
    loading,
    local_version,
    model_folder,
    pick_device,
    quiet_libraries,
    require,
    versions,
)
from forgery_det.recipes.generate.pixel_grid import ImageArray

_ADVICE = "Choose `dtype: bfloat16`, a smaller `image_area_px`, or a larger GPU."


@dataclass(frozen=True, slots=True)
class TransformersParameters:
    """Keys of a `transformers` generator.

    Args:
        dtype: `bfloat16`, `float16` or `float32`.
        guidance: Weight of classifier-free guidance; 1 switches it off.
        temperature: Of the sampling; 0 takes the likeliest token each time.
        top_k: Only the k likeliest tokens are drawn from; None sets no limit.
        top_p: Only the likeliest tokens that make up this probability are drawn from; None sets no limit.
        negative_prompt: What must not be in the image (Emu3).
        image_area_px: Pixels of the image (Emu3; Janus has one size).
        ratio: Width to height, such as `1:1` (Emu3).
        device: Such as `cuda:1`; None takes the first accelerator.
    """

    dtype: str = "bfloat16"
    guidance: float = 5.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    negative_prompt: str | None = None
    image_area_px: int | None = None
    ratio: str = "1:1"
    device: str | None = dataclasses.field(default=None, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        check_model_keys(self.dtype)
        if self.guidance < 1 or self.temperature < 0:
            got = f"{self.guidance} and {self.temperature}"
            raise ConfigError(f"Expected `guidance` of at least 1 and `temperature` of at least 0, got {got}")
        sides = self.ratio.split(":")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            raise ConfigError(f"Expected `ratio` as two whole numbers such as '4:3', got {self.ratio!r}")


class TransformersGenerator(Generator):
    """Runs a unified model; see the module."""

    Parameters = TransformersParameters
    takes_image = False
    parameters: TransformersParameters

    def model_version(self) -> str:
        """Return the revision, or the hash of a local model's files."""
        return local_version(self.context)

    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:  # noqa: ARG002 - text alone
        """Yield the jobs one after the other.

        Raises:
            SourceError: The model cannot be loaded, makes no images, or memory is short.
        """
        if not jobs:
            return
        with quiet_libraries():
            model = self.loaded(lambda: LoadedModel(self.parameters, self.context))
        failures = Failures(self.context, _ADVICE)
        for job in jobs:
            try:
                with quiet_libraries():
                    outcome = model.make(job)
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError, MemoryError) as error:
                yield from failures.outcomes([job], error)
                continue
            failures.succeeded()
            yield job, outcome


class LoadedModel:
    """A model and its processor on their device.

    Args:
        parameters: The recipe's keys.
        context: The generator.

    Raises:
        SourceError: It cannot be loaded, or makes no images.
    """

    def __init__(self, parameters: TransformersParameters, context: GeneratorContext) -> None:
        require("transformers", context)
        import torch
        import transformers

        self.given = parameters
        self._device = pick_device(parameters.device)
        path = str(model_folder(context) or context.model)
        revision = context.model_version or "main"
        with loading(context):
            config = transformers.AutoConfig.from_pretrained(path, revision=revision)
        if config.model_type not in FAMILIES:
            hint = did_you_mean(str(config.model_type), FAMILIES)
            raise SourceError(
                f"Expected a model that transformers makes images with, got {config.model_type!r}: {hint} "
                f"(generator {context.name!r})."
            )
        class_name, self._sample = FAMILIES[config.model_type]
        with loading(context):
            processors: Any = transformers.AutoProcessor
            self.processor: Any = processors.from_pretrained(path, revision=revision)
            self.model: Any = getattr(transformers, class_name).from_pretrained(
                path, revision=revision, dtype=getattr(torch, parameters.dtype), use_safetensors=True
            )
        self.model.to(self._device).eval()
        self._facts = {
            "model_class": class_name,
            "dtype": parameters.dtype,
            "device": self._device.type,
            "device_name": device_name(self._device),
            "model_version_returned": commit_of(context, "config.json"),
            "versions": versions("transformers", "torch"),
            "cost_usd": 0.0,
        }

    def make(self, job: Job) -> Outcome:
        """Return the outcome of a job."""
        import torch

        began = time.monotonic()
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(job.seed)
            pixels, request = self._sample(self, job)
        duration_s = round(time.monotonic() - began, 3)
        facts = self._facts | {"request": json_values(request), "seed": job.seed, "duration_s": duration_s}
        return Outcome("image", encode_image(pixels, "png", None), "", facts)

    def sampling(self) -> dict[str, Any]:
        """Return the arguments of `generate` that decide how a token is drawn."""
        given = self.given
        if given.temperature == 0:
            return {"do_sample": False}
        drawn: dict[str, Any] = {"do_sample": True, "temperature": given.temperature, "top_k": given.top_k or 0}
        return drawn if given.top_p is None else drawn | {"top_p": given.top_p}

    def prompt(self, text: str, *, as_chat: bool) -> str:
        """Return the text in the model's chat template where it has one."""
        if not as_chat or not getattr(self.processor, "chat_template", None):
            return text
        message = {"role": "user", "content": [{"type": "text", "text": text}]}
        return str(self.processor.apply_chat_template([message], add_generation_prompt=True))

    def on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tensors of a processor's output on the model's device."""
        return {name: inputs[name].to(self._device) for name in ("input_ids", "attention_mask")}

    def pixels(self, decoded_CHW: Any) -> ImageArray:
        """Return decoded values as RGB, the inverse of the image processor's normalisation, cut off as it does."""
        # The processor of Janus in transformers 5.23 has `postprocess` fail on the values that its model decodes.
        images = self.processor.image_processor
        values_HWC = decoded_CHW.float().cpu().permute(1, 2, 0).numpy()
        unit_HWC = values_HWC * np.asarray(images.image_std) + np.asarray(images.image_mean)
        return np.ascontiguousarray(np.clip(unit_HWC * 255, 0, 255).astype(np.uint8))


Sampled = tuple[ImageArray, dict[str, Any]]
"""Pixels, and what was asked of the model."""


def _janus(loaded: LoadedModel, job: Job) -> Sampled:
    if job.negative_prompt is not None or loaded.given.image_area_px is not None:
        raise SourceError(
            "Expected no `negative_prompt` and no `image_area_px` with Janus, which has neither, got one."
        )
    text = loaded.prompt(job.prompt or "", as_chat=True)
    inputs = loaded.on_device(loaded.processor(text=text, generation_mode="image", return_tensors="pt"))
    # At exactly 1 transformers 5.23 leaves its two rows, with and without the prompt, unmixed and fails.
    sampling = loaded.sampling() | {"guidance_scale": max(loaded.given.guidance, 1 + 1e-6)}
    tokens = loaded.model.generate(**inputs, generation_mode="image", **sampling)
    decoded_BHWC = loaded.model.decode_image_tokens(tokens)
    return loaded.pixels(decoded_BHWC[0].permute(2, 0, 1)), sampling


def _emu3(loaded: LoadedModel, job: Job) -> Sampled:
    given, processor, model = loaded.given, loaded.processor, loaded.model
    size: dict[str, Any] = {"ratio": given.ratio}
    if given.image_area_px is not None:
        size["image_area"] = given.image_area_px

    def prepared(text: str) -> Any:
        return processor(text=[text], return_tensors="pt", return_for_image_generation=True, **size)

    inputs = prepared(job.prompt or "")
    height, width = (int(side) for side in inputs["image_sizes"][0])
    tensors = loaded.on_device(inputs)
    sampling = loaded.sampling()
    guided: dict[str, Any] = {}
    if given.guidance > 1:
        negative = loaded.on_device(prepared(job.negative_prompt or ""))
        guided = {
            "guidance_scale": given.guidance,
            "negative_prompt_ids": negative["input_ids"],
            "negative_prompt_attention_mask": negative["attention_mask"],
        }
    start = int(tensors["input_ids"].shape[1])
    length = height * (width + 1) + 3
    allowed = _emu3_grammar(processor.tokenizer, model.vocabulary_mapping.image_tokens, start, height, width)
    tokens = model.generate(
        **tensors, **sampling, **guided, max_new_tokens=length, min_new_tokens=length, prefix_allowed_tokens_fn=allowed
    )
    decoded = model.decode_image_tokens(image_tokens=tokens[:, start:], height=height, width=width)
    request = sampling | {"guidance_scale": given.guidance, "token_grid": [width, height]}
    return loaded.pixels(decoded.reshape(-1, *decoded.shape[-3:])[0]), request


def _emu3_grammar(
    tokenizer: Any, visual: Sequence[int], start: int, height: int, width: int
) -> Callable[[int, Any], list[int]]:
    """Return which tokens may stand at the next position of an image of `height` rows of `width` tokens."""
    end_of_line = tokenizer.convert_tokens_to_ids("<|extra_200|>")
    names = (tokenizer.eof_token, tokenizer.eoi_token, tokenizer.eos_token)
    tail = [tokenizer.convert_tokens_to_ids(name) for name in names]
    visual = list(visual)

    def allowed(_batch_id: int, input_ids: Any) -> list[int]:
        position = int(input_ids.shape[-1]) - start
        row, column = divmod(position, width + 1)
        if row >= height:
            return [tail[min(position - height * (width + 1), len(tail) - 1)]]
        return [end_of_line] if column == width else visual

    return allowed


FAMILIES: Mapping[str, tuple[str, Callable[[LoadedModel, Job], Sampled]]] = {
    "emu3": ("Emu3ForConditionalGeneration", _emu3),
    "janus": ("JanusForConditionalGeneration", _janus),
}
"""`model_type` of a configuration -> class of transformers, and how an image is made with it."""
