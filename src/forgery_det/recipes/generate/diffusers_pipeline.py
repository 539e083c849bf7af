"""Any image pipeline of diffusers by its id: text to image, image to image, inpainting.

The pipeline class comes from the model's own `model_index.json`. Noise is drawn on the CPU by a generator for each
image, so a seed means the same image whatever else is in the batch, up to the arithmetic of the device; with a batch
size above 1 some devices add up in another order, and then the last bits may depend on the batch.

Input images keep their pixel grid: without `width_px` and `height_px` they are padded and cut back, never resized.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from forgery_det.core.errors import ConfigError, ImageError, SourceError
from forgery_det.core.image_io import DecodedImage, decode_image, encode_image
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
from forgery_det.recipes.generate.pixel_grid import ImageArray, check_history, encode_like, pad_to_multiple
from forgery_det.transforms.preprocess import resize

TASKS: Mapping[str, str | None] = {
    "image_to_image": "AutoPipelineForImage2Image",
    "inpainting": "AutoPipelineForInpainting",
    "text_to_image": None,
}
"""Task -> class that finds the pipeline; None takes the model's own class."""

OUTPUTS = ("png", "like_input")
_ADVICE = (
    "Choose `dtype: bfloat16`, a smaller `batch_size` or size, `offload: model` (or `sequential`, slower), or a larger "
    "GPU."
)


@dataclass(frozen=True, slots=True)
class DiffusersParameters:
    """Keys of a `diffusers` generator.

    Args:
        task: `text_to_image`, `image_to_image` or `inpainting`; the latter two need `images`, the last `mask` too.
        pipeline: Class of diffusers, for models whose own class is not the one to call.
        dtype: `bfloat16`, `float16` or `float32`.
        variant: Weights variant of the repository, such as `fp16`.
        scheduler: Class of diffusers that replaces the model's scheduler, with the model's own settings.
        scheduler_args: Settings of the scheduler that differ from the model's.
        steps: Denoising steps; None takes the pipeline's default, as for the following ones.
        guidance: `guidance_scale`.
        negative_prompt: What must not be in the image.
        width_px: Width; for input images None keeps theirs.
        height_px: Height; for input images None keeps theirs.
        strength: How much of an input image is replaced, in (0, 1].
        without: Components that are left out, such as `text_encoder_3` and `tokenizer_3` of SD3.
        call: Further arguments of the pipeline, such as `true_cfg_scale` or `max_sequence_length`.
        keep_outside: Inpainting puts the input's pixels back outside of the mask.
        output: `png`, or `like_input`: JPEG with the tables of a JPEG input (see `pixel_grid`).
        offload: `none`, `model` (layers wait in main memory, whole models at a time) or `sequential`.
        batch_size: Images at once.
        device: Such as `cuda:1`; None takes the first accelerator.
    """

    task: str = "text_to_image"
    pipeline: str | None = None
    dtype: str = "bfloat16"
    variant: str | None = None
    scheduler: str | None = None
    scheduler_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    strength: float | None = None
    without: tuple[str, ...] = ()
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keep_outside: bool = True
    output: str = "png"
    offload: str = dataclasses.field(default="none", metadata=INCIDENTAL)
    batch_size: int = dataclasses.field(default=1, metadata=INCIDENTAL)
    device: str | None = dataclasses.field(default=None, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        check_model_keys(self.dtype, self.offload)
        for name, value, known in (("task", self.task, tuple(TASKS)), ("output", self.output, OUTPUTS)):
            if value not in known:
                raise ConfigError(f"Unknown {name} {value!r}: {did_you_mean(value, known)}")
        for name in ("steps", "width_px", "height_px", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected `{name}` of at least 1, got {value}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise ConfigError(f"Expected `strength` in (0, 1], got {self.strength}")
        if self.task == "text_to_image" and (self.strength is not None or self.output != "png"):
            raise ConfigError("Expected `strength` and `output` with image_to_image or inpainting, got text_to_image")
        if (self.width_px is None) != (self.height_px is None):
            raise ConfigError("Expected `width_px` and `height_px` together, got one of them")


class DiffusersGenerator(Generator):
    """Runs a pipeline; see the module."""

    Parameters = DiffusersParameters
    parameters: DiffusersParameters

    def __init__(self, parameters: DiffusersParameters, context: GeneratorContext) -> None:
        super().__init__(parameters, context)
        self.needs_image = self.takes_image = parameters.task != "text_to_image"
        self.needs_mask = parameters.task == "inpainting"

    def model_version(self) -> str:
        """Return the revision, or the hash of a local model's files."""
        return local_version(self.context)

    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:
        """Yield the jobs batch by batch.

        Raises:
            SourceError: The model cannot be loaded, does not take an argument, or memory is short.
        """
        if not jobs:
            return
        with quiet_libraries():
            pipeline = self.loaded(lambda: LoadedPipeline(self.parameters, self.context))
        failures = Failures(self.context, _ADVICE)
        size = self.parameters.batch_size if not self.needs_image else 1
        for start in range(0, len(jobs), size):
            batch = jobs[start : start + size]
            try:
                with quiet_libraries():
                    made = pipeline.make(batch, inputs)
            except ImageError as error:
                yield from ((job, Outcome("failed", None, str(error), {})) for job in batch)
                continue
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError, MemoryError) as error:
                yield from failures.outcomes(batch, error)
                continue
            failures.succeeded()
            yield from zip(batch, made, strict=True)


class LoadedPipeline:
    """A pipeline on its device.

    Args:
        parameters: The recipe's keys.
        context: The generator.

    Raises:
        SourceError: It cannot be loaded.
    """

    def __init__(self, parameters: DiffusersParameters, context: GeneratorContext) -> None:
        require("diffusers", context)
        require("transformers", context)
        self._given = parameters
        self._context = context
        self._device = pick_device(parameters.device)
        self._pipeline = self._load()
        self._takes = frozenset(inspect.signature(self._pipeline.__call__).parameters)
        self._facts = self._describe()

    def _load(self) -> Any:
        import diffusers
        import torch

        given, context = self._given, self._context
        name = given.pipeline or TASKS[given.task] or "DiffusionPipeline"
        if not hasattr(diffusers, name):
            near = did_you_mean(name, [one for one in dir(diffusers) if "Pipeline" in one]).split(" Known:")[0]
            raise ConfigError(f"Unknown pipeline {name!r} of diffusers: {near} (generator.pipeline).")
        with loading(context):
            pipeline = getattr(diffusers, name).from_pretrained(
                str(model_folder(context) or context.model),
                revision=context.model_version,
                variant=given.variant,
                torch_dtype=getattr(torch, given.dtype),
                use_safetensors=True,  # no pickle
                **dict.fromkeys(given.without),
            )
            self._set_scheduler(pipeline)
        pipeline.set_progress_bar_config(disable=True)
        self._place(pipeline)
        return pipeline

    def _set_scheduler(self, pipeline: Any) -> None:
        import diffusers

        given = self._given
        if given.scheduler is None and not given.scheduler_args:
            return
        name = given.scheduler or type(pipeline.scheduler).__name__
        if not hasattr(diffusers, name):
            known = [one for one in dir(diffusers) if one.endswith("Scheduler")]
            raise ConfigError(f"Unknown scheduler {name!r} of diffusers: {did_you_mean(name, known)}")
        pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config, **given.scheduler_args)

    def _place(self, pipeline: Any) -> None:
        if self._given.offload == "none":
            pipeline.to(self._device)
            return
        require("accelerate", self._context)
        if self._device.type == "cpu":
            raise ConfigError("Expected an accelerator for `offload`, got the CPU alone (generator.offload).")
        place = {"model": "enable_model_cpu_offload", "sequential": "enable_sequential_cpu_offload"}
        getattr(pipeline, place[self._given.offload])(device=self._device)

    def _describe(self) -> dict[str, Any]:
        pipeline = self._pipeline
        scheduler = getattr(pipeline, "scheduler", None)
        return {
            "pipeline": type(pipeline).__name__,
            "scheduler": None if scheduler is None else type(scheduler).__name__,
            "scheduler_config": {} if scheduler is None else json_values(dict(scheduler.config)),
            "dtype": self._given.dtype,
            "offload": self._given.offload,
            "batch_size": self._given.batch_size,
            "device": self._device.type,
            "device_name": device_name(self._device),
            "model_version_returned": commit_of(self._context, "model_index.json"),
            "versions": versions("diffusers", "transformers", "torch"),
            "cost_usd": 0.0,
        }

    def make(self, batch: Sequence[Job], inputs: Inputs) -> list[Outcome]:
        """Return the outcomes of a batch, of one job where there are input images.

        Raises:
            ImageError: The input image or the mask cannot be used.
        """
        import torch

        began = time.monotonic()
        request = self._request(batch)
        picture = _Picture.of(batch[0], inputs, self._given, self._multiple()) if batch[0].image_sha256 else None
        tensors: dict[str, Any] = {} if picture is None else picture.arguments(self._takes)
        generators = [torch.Generator("cpu").manual_seed(job.seed) for job in batch]
        with torch.inference_mode():
            made = self._pipeline(**request, **tensors, generator=generators, output_type="pil")
        flagged = getattr(made, "nsfw_content_detected", None) or [False] * len(batch)
        each_s = round((time.monotonic() - began) / len(batch), 3)
        plain = json_values(
            {name: value for name, value in request.items() if name not in ("prompt", "negative_prompt")}
        )
        outcomes = []
        for job, image, is_flagged in zip(batch, made.images, flagged, strict=True):
            facts = self._facts | {"request": plain, "seed": job.seed, "duration_s": each_s}
            if is_flagged:
                outcomes.append(Outcome("blocked", None, "The pipeline's safety checker flagged the image.", facts))
                continue
            pixels = np.asarray(image.convert("RGB"))
            data, history = (encode_image(pixels, "png", None), None) if picture is None else picture.finish(pixels)
            told = {} if picture is None else picture.facts | {"history": history}
            outcomes.append(Outcome("image", data, "", facts | told))
        return outcomes

    def _multiple(self) -> int:
        # Transformers cut the latent into patches of 2 x 2; for others the double does no harm.
        return 2 * int(getattr(self._pipeline, "vae_scale_factor", 8))

    def _request(self, batch: Sequence[Job]) -> dict[str, Any]:
        """Return the arguments of the call, all of which the pipeline must know.

        Raises:
            SourceError: It does not know one.
        """
        given = self._given
        wanted: dict[str, Any] = {
            "prompt": [job.prompt or "" for job in batch],
            "negative_prompt": None if given.negative_prompt is None else [given.negative_prompt] * len(batch),
            "num_inference_steps": given.steps,
            "guidance_scale": given.guidance,
            "strength": given.strength,
        }
        if given.task == "text_to_image":
            wanted |= {"width": given.width_px, "height": given.height_px}
        request = {name: value for name, value in wanted.items() if value is not None} | dict(given.call)
        for name in request:
            if name not in self._takes:
                raise SourceError(
                    f"Expected arguments that {type(self._pipeline).__name__} takes, got {name!r}: "
                    f"{did_you_mean(name, self._takes)} (generator {self._context.name!r})."
                )
        return request


@dataclass(frozen=True, slots=True)
class _Picture:
    """An input image on its way through a pipeline: decoded, padded, and the way back.

    Args:
        data: The original's bytes.
        decoded: The original, upright.
        inner_HWC: The original at the size asked for.
        mask_HW: What is painted anew, at that size; None without a mask.
        given: The recipe's keys.
        multiple: What the sides of the pipeline's input divide by.
    """

    data: bytes
    decoded: DecodedImage
    inner_HWC: ImageArray
    mask_HW: np.ndarray[Any, np.dtype[np.bool_]] | None
    given: DiffusersParameters
    multiple: int

    @classmethod
    def of(cls, job: Job, inputs: Inputs, given: DiffusersParameters, multiple: int) -> _Picture:
        assert job.image_sha256 is not None
        data = inputs(job.image_sha256)
        decoded = decode_image(data)
        if given.output == "like_input":
            check_history(decoded, data)
        inner_HWC, mask_HW = decoded.image_HWC, None
        if job.mask_sha256 is not None:
            mask_HW = decode_image(inputs(job.mask_sha256)).image_HWC
        if given.width_px is not None and given.height_px is not None:
            inner_HWC = resize(inner_HWC, given.width_px, given.height_px, "lanczos")
            if mask_HW is not None:
                mask_HW = resize(mask_HW, given.width_px, given.height_px, "nearest")
        binary = None if mask_HW is None else mask_HW[:, :, 0] >= 128
        return cls(data, decoded, inner_HWC, binary, given, multiple)

    @property
    def facts(self) -> dict[str, Any]:
        height, width = self.inner_HWC.shape[:2]
        share = {} if self.mask_HW is None else {"mask_share": round(float(self.mask_HW.mean()), 6)}
        resized = (height, width) != self.decoded.image_HWC.shape[:2]
        return {
            "input_size_px": [width, height],
            "input_resized": resized,
            "keep_outside": self.given.keep_outside,
        } | share

    def arguments(self, takes: frozenset[str]) -> dict[str, Any]:
        padded = pad_to_multiple(self.inner_HWC, self.multiple)
        arguments: dict[str, Any] = {"image": Image.fromarray(padded)}
        if self.mask_HW is not None:
            white = np.where(self.mask_HW, 255, 0).astype(np.uint8)[:, :, None]
            arguments["mask_image"] = Image.fromarray(pad_to_multiple(white, self.multiple)[:, :, 0])
        size = {"height": padded.shape[0], "width": padded.shape[1]}
        return arguments | {name: side for name, side in size.items() if name in takes}

    def finish(self, pixels_HWC: ImageArray) -> tuple[bytes, str]:
        height, width = self.inner_HWC.shape[:2]
        if pixels_HWC.shape[0] < height or pixels_HWC.shape[1] < width:
            raise ValueError(f"expected an image of at least {width} x {height} px, got {pixels_HWC.shape[1::-1]}")
        cut_HWC = np.ascontiguousarray(pixels_HWC[:height, :width])
        if self.mask_HW is not None and self.given.keep_outside:
            cut_HWC = np.where(self.mask_HW[:, :, None], cut_HWC, self.inner_HWC)
        if self.given.output == "like_input":
            return encode_like(cut_HWC, self.data, self.decoded.facts)
        return encode_image(cut_HWC, "png", None), "png"
