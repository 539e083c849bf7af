"""Unified models that transformers ships natively: Janus, Janus-Pro, Emu3. One set of weights reads and draws.

Drawing is the generator `transformers` of recipes. Reading goes through the processor's chat template (or, for models
without one, image placeholders before the text) and `generate`, seeded for each answer. With `draws: false` any
image-text-to-text model of the library can be read with: the isolated reader beside the unified one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.recipes.generate.base import GeneratorContext, deciding
from forgery_det.recipes.generate.job import Job
from forgery_det.recipes.generate.local_model import (
    Failures,
    loading,
    local_version,
    model_folder,
    pick_device,
    quiet_libraries,
    require,
)
from forgery_det.recipes.generate.transformers_unified import LoadedModel, TransformersParameters
from forgery_det.recipes.prompting.base import TextReply
from forgery_det.recipes.prompting.local_model import generate
from forgery_det.recipes.prompting.picture import shown_bytes
from forgery_det.safety.models.base import ModelContext, UnifiedModel
from forgery_det.safety.models.replies import text_answer
from forgery_det.safety.types import Answer

_ADVICE = "Choose `dtype: bfloat16`, a smaller `image_area_px` or `max_image_side_px`, or a larger GPU."
_TROUBLE = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersModelParameters(TransformersParameters):
    """Keys of a model of the kind `transformers`, besides those of the generator `transformers`, which hold for images.

    Args:
        model: Folder, relative to the plan, or name on the hub.
        revision: Commit or tag on the hub; None takes the newest, which may change under the plan.
        reads: It understands; false for weights that only draw (Emu3-Gen).
        draws: It generates; false for weights that only read (Emu3-Chat, or any image-text-to-text model).
        max_tokens: Most tokens of a text.
        text_temperature: Of the sampling of texts; 0 takes the likeliest token each time, so that repeats are equal.
        max_image_side_px: Pictures are shrunk to this before the model's own preprocessing.
    """

    model: str
    revision: str | None = None
    reads: bool = True
    draws: bool = True
    max_tokens: int = 512
    text_temperature: float = 0.7
    max_image_side_px: int = 1024

    def __post_init__(self) -> None:
        TransformersParameters.__post_init__(self)
        if self.max_tokens < 1 or self.text_temperature < 0 or self.max_image_side_px < 16:
            raise ConfigError(
                "Expected `max_tokens` of at least 1, `text_temperature` of at least 0 and `max_image_side_px` of at "
                f"least 16, got {self.max_tokens}, {self.text_temperature} and {self.max_image_side_px}"
            )
        if not (self.reads or self.draws):
            raise ConfigError("Expected a model that reads or draws, got `reads: false` and `draws: false`")


class TransformersModel(UnifiedModel):
    """A model on this machine; see the module."""

    Parameters = TransformersModelParameters
    parameters: TransformersModelParameters

    def __init__(self, parameters: TransformersModelParameters, context: ModelContext) -> None:
        super().__init__(parameters, context)
        self.understands, self.generates = parameters.reads, parameters.draws
        self._where = GeneratorContext(
            context.name, parameters.model, parameters.revision, context.folder, context.cache
        )
        self._loaded: LoadedModel | _Reader | None = None
        self._failures = Failures(self._where, _ADVICE)
        self._lock = Lock()

    def version(self) -> str:
        """Return model and revision, or the hash of a local model's files."""
        return f"{self.parameters.model}@{local_version(self._where) or 'newest'}"

    def understand(self, images: Sequence[bytes], text: str, *, seed: int) -> Answer:
        """Return what the model says to pictures and a text.

        Raises:
            SourceError: It cannot be loaded, or memory is short.
        """
        try:
            shown = [shown_bytes(image, self.parameters.max_image_side_px) for image in images]
        except ImageError as error:
            return Answer("failed", "text", detail=f"Expected a readable picture, got: {error}")
        with self._lock, quiet_libraries():
            loaded = self._model()
            try:
                reply = self._read(loaded, shown, text, seed)
            except _TROUBLE as error:
                self._failures.outcomes((), error)
                return Answer("failed", "text", detail=f"{type(error).__name__}: {error}")
        self._failures.succeeded()
        return text_answer(reply, {"cost_usd": 0.0, "seed": seed})

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:
        """Return the image that the model draws; it draws from texts alone.

        Raises:
            SourceError: as `understand`.
        """
        if images:
            detail = f"Expected a prompt without picture, which model {self.name!r} draws nothing from, got one with."
            return Answer("failed", "image", detail=detail)
        given = self.parameters
        job = Job(
            self.name, "transformers", given.model, given.revision or "", text, given.negative_prompt, seed,
            deciding(given),
        )  # fmt: skip
        with self._lock, quiet_libraries():
            loaded = self._model()
            assert isinstance(loaded, LoadedModel)  # `draws` chose it
            try:
                outcome = loaded.make(job)
            except _TROUBLE as error:
                self._failures.outcomes((), error)
                return Answer("failed", "image", detail=f"{type(error).__name__}: {error}")
        self._failures.succeeded()
        return Answer("made", "image", image=outcome.data, provenance=outcome.provenance)

    def close(self) -> None:
        """Let go of the weights."""
        with self._lock:
            had_any, self._loaded = self._loaded is not None, None
        if had_any:
            import torch

            torch.cuda.empty_cache()

    def _model(self) -> LoadedModel | _Reader:
        if self._loaded is None:
            self._loaded = (LoadedModel if self.parameters.draws else _Reader)(self.parameters, self._where)
        return self._loaded

    def _read(self, loaded: LoadedModel | _Reader, shown: Sequence[Any], text: str, seed: int) -> TextReply:
        given, processor, model = self.parameters, loaded.processor, loaded.model
        inputs = _inputs(processor, shown, text).to(model.device, dtype=model.dtype)
        return generate(model, inputs, processor.decode, given.max_tokens, given.text_temperature, seed)


class _Reader:
    """An image-text-to-text model and its processor on their device.

    Raises:
        SourceError: It cannot be loaded.
    """

    def __init__(self, given: TransformersModelParameters, where: GeneratorContext) -> None:
        require("transformers", where)
        import torch
        import transformers

        path, revision = str(model_folder(where) or where.model), where.model_version or "main"
        with loading(where):
            processors: Any = transformers.AutoProcessor
            self.processor: Any = processors.from_pretrained(path, revision=revision)
            models: Any = transformers.AutoModelForImageTextToText
            self.model: Any = models.from_pretrained(
                path, revision=revision, dtype=getattr(torch, given.dtype), use_safetensors=True
            )
        self.model.to(pick_device(given.device)).eval()


def _inputs(processor: Any, shown: Sequence[Any], text: str) -> Any:
    """Return the processor's tensors for pictures followed by a text."""
    if not getattr(processor, "chat_template", None):
        # Such as base models: each picture has its placeholder before the text.
        placeholders = "".join(f"{processor.image_token}\n" for _ in shown)
        return processor(text=[placeholders + text], images=list(shown) or None, return_tensors="pt")
    content = [{"type": "image", "image": picture} for picture in shown] + [{"type": "text", "text": text}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
