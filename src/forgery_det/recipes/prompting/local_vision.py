"""Descriptions of images from a model on this machine, through the library transformers (image-text-to-text).

`chat: true`: a vision-language model with a chat template (Qwen-VL, LLaVA, SmolVLM ...), told what to do by the
instruction. `chat: false`: a captioner that was made for captions alone (BLIP, GIT ...), and takes no instruction.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError, ImageError
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
from forgery_det.recipes.prompting.local_model import generate, local_or_hub, need, version_of
from forgery_det.recipes.prompting.picture import shown_image


@dataclass(frozen=True, slots=True)
class TransformersVisionParameters:
    """Keys of a text model of the kind `transformers_vision`.

    Args:
        model: Folder, relative to the recipe, or name on the hub.
        revision: Commit or tag on the hub; None takes the newest, which may change under the recipe.
        chat: The model has a chat template and takes an instruction.
        dtype: `bfloat16`, `float16` or `float32`.
        device: `cpu`, `cuda`, `cuda:1` ...; None takes the first GPU where there is one.
        max_tokens: Most tokens of a description.
        temperature: Of the sampling; 0 takes the likeliest token each time.
        max_image_side_px: Images are shrunk to this before the model's own preprocessing.
    """

    model: str
    revision: str | None = None
    chat: bool = True
    dtype: str = "bfloat16"
    device: str | None = field(default=None, metadata=INCIDENTAL)
    max_tokens: int = 128
    temperature: float = 0.0
    max_image_side_px: int = 1024

    def __post_init__(self) -> None:
        check_model_keys(self.dtype)
        if self.max_tokens < 1 or self.temperature < 0 or self.max_image_side_px < 16:
            raise ConfigError(
                "Expected `max_tokens` of at least 1, `temperature` of at least 0 and `max_image_side_px` of at least "
                f"16, got {self.max_tokens}, {self.temperature} and {self.max_image_side_px}"
            )


class TransformersVision(TextModel):
    """A captioner or a vision-language model."""

    Parameters = TransformersVisionParameters
    reads = False
    sees = True

    def __init__(self, parameters: TransformersVisionParameters, folder: Path) -> None:
        self._parameters = parameters
        self._folder = folder
        self._name = local_or_hub(parameters.model, folder)

    @classmethod
    def takes_instruction(cls, parameters: TransformersVisionParameters) -> bool:
        """Return whether the recipe says what the model is told."""
        return parameters.chat

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the texts."""
        given = self._parameters
        version = version_of(given.model, given.revision, self._folder)
        return {"kind": "transformers_vision", "version": version, **deciding(given)}

    def run(self, requests: Sequence[TextRequest]) -> Iterator[tuple[TextRequest, TextReply | TextFailure]]:
        """Yield replies one by one.

        Raises:
            TextModelDownError: The model cannot be loaded.
        """
        given = self._parameters
        for request in requests:
            assert request.image is not None
            try:
                picture = shown_image(request.image, given.max_image_side_px)
            except (ImageError, OSError) as error:
                yield request, TextFailure("expansion_failed", f"Expected a readable image, got: {error}")
                continue
            processor, model = self._loaded
            inputs = self._inputs(picture, request.instruction).to(model.device, dtype=model.dtype)
            yield request, generate(model, inputs, processor.decode, given.max_tokens, given.temperature, request.seed)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        need("transformers")
        # Only here: a finished set loads no weights.
        library: Any = importlib.import_module("transformers")
        given = self._parameters
        try:
            with quiet_libraries():
                processor = library.AutoProcessor.from_pretrained(self._name, revision=given.revision)
                model = library.AutoModelForImageTextToText.from_pretrained(
                    self._name, revision=given.revision, dtype=given.dtype
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise TextModelDownError(f"Expected an image-text-to-text model at {self._name!r}, got: {error}") from error
        if given.chat and getattr(processor, "chat_template", None) is None:
            raise TextModelDownError(
                f"Expected a model with a chat template, got none with {self._name!r}: `chat: false` is for captioners."
            )
        return processor, model.to(pick_device(given.device)).eval()

    def _inputs(self, picture: Any, instruction: str) -> Any:
        processor, _ = self._loaded
        if not self._parameters.chat:
            return processor(images=picture, return_tensors="pt")
        content = [{"type": "image", "image": picture}, {"type": "text", "text": instruction}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
