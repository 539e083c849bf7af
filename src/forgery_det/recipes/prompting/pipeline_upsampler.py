"""A diffusion pipeline's own prompt upsampler: what its users get when they let it rewrite their prompts.

diffusers 0.42 offers one in two public forms: `upsample_prompt` (FLUX.2 [dev]: its Mistral text encoder writes; in
Ideogram 4 only with its separate enhancer head) and `rewire_prompt` (LongCat-Image: its Qwen2.5-VL text encoder
writes). The instruction is the pipeline's own and cannot be given. Only the parts that write are loaded, not the
denoiser.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from forgery_det.recipes.generate.local_model import check_model_keys, pick_device, quiet_libraries
from forgery_det.recipes.prompting.base import (
    INCIDENTAL,
    TextFailure,
    TextModel,
    TextModelDownError,
    TextReply,
    TextRequest,
    deciding,
)
from forgery_det.recipes.prompting.local_model import local_or_hub, need, seeded, version_of

_METHODS = ("upsample_prompt", "rewire_prompt")
_UNUSED = ("transformer", "unconditional_transformer", "unet", "vae")
"""Components that write no text; the largest of a pipeline are among them."""


@dataclass(frozen=True, slots=True)
class PipelineUpsamplerParameters:
    """Keys of a text model of the kind `pipeline`.

    Args:
        model: Folder, relative to the recipe, or name on the hub, of a diffusers pipeline with an upsampler.
        revision: Commit or tag on the hub; None takes the newest, which may change under the recipe.
        dtype: `bfloat16`, `float16` or `float32`.
        device: `cpu`, `cuda`, `cuda:1` ...; None takes the first GPU where there is one.
        temperature: Of the sampling; None keeps the pipeline's own. LongCat-Image takes none.
    """

    model: str
    revision: str | None = None
    dtype: str = "bfloat16"
    device: str | None = field(default=None, metadata=INCIDENTAL)
    temperature: float | None = None

    def __post_init__(self) -> None:
        check_model_keys(self.dtype)


class PipelineUpsampler(TextModel):
    """The upsampler of a diffusers pipeline."""

    Parameters = PipelineUpsamplerParameters

    def __init__(self, parameters: PipelineUpsamplerParameters, folder: Path) -> None:
        self._parameters = parameters
        self._folder = folder
        self._name = local_or_hub(parameters.model, folder)

    @classmethod
    def takes_instruction(cls, parameters: PipelineUpsamplerParameters) -> bool:
        """Return False: the pipeline brings its own."""
        del parameters
        return False

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the texts."""
        given = self._parameters
        version = version_of(given.model, given.revision, self._folder)
        return {"kind": "pipeline", "version": version, **deciding(given)}

    def run(self, requests: Sequence[TextRequest]) -> Iterator[tuple[TextRequest, TextReply | TextFailure]]:
        """Yield replies one by one.

        Raises:
            TextModelDownError: The pipeline cannot be loaded, or has no upsampler.
        """
        for request in requests:
            method, pipe = self._loaded
            with seeded(request.seed), quiet_libraries():
                try:
                    (text,) = getattr(pipe, method)(request.text, **self._options(method, pipe))
                except ValueError as error:
                    raise TextModelDownError(f"Expected a prompt from {self._name!r}, got: {error}") from error
            version = f"{type(pipe).__name__}.{method} {importlib.metadata.version('diffusers')}"
            yield request, TextReply(text, model_version=version)

    def _options(self, method: str, pipe: Any) -> dict[str, Any]:
        options: dict[str, Any] = {"device": pipe.text_encoder.device}
        if self._parameters.temperature is not None and method == "upsample_prompt":
            options["temperature"] = self._parameters.temperature
        return options

    @cached_property
    def _loaded(self) -> tuple[str, Any]:
        need("diffusers")
        # Only here: a finished set loads no weights.
        import diffusers
        import torch

        given = self._parameters
        with quiet_libraries():
            try:
                config = diffusers.DiffusionPipeline.load_config(self._name, revision=given.revision)
                pipeline, method = _upsampler(config["_class_name"], self._name)
                pipe = pipeline.from_pretrained(
                    self._name,
                    revision=given.revision,
                    torch_dtype=getattr(torch, given.dtype),
                    **{name: None for name in _UNUSED if name in config},
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise TextModelDownError(f"Expected a diffusers pipeline at {self._name!r}, got: {error}") from error
        return method, pipe.to(pick_device(given.device))


def _upsampler(class_name: str, where: str) -> tuple[Any, str]:
    """Return the pipeline's class and the name of the method that rewrites prompts.

    Raises:
        TextModelDownError: The class has none, or this release of diffusers does not know it.
    """
    import diffusers

    pipeline = getattr(diffusers, class_name, None)
    method = next((name for name in _METHODS if hasattr(pipeline, name)), None)
    if method is None:
        raise TextModelDownError(
            f"Expected a pipeline that rewrites prompts ({' or '.join(_METHODS)}), got {class_name} ({where!r})."
        )
    return pipeline, method
