"""Texts from a language model on this machine: a causal model with a chat template, through the library transformers.

One prompt at a time, so that a text does not depend on its neighbours in a batch and a resumed set is the same set. For
tens of thousands of prompts serve the model (vLLM and others batch well) and use `openai_chat`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError
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


@dataclass(frozen=True, slots=True)
class TransformersTextParameters:
    """Keys of a text model of the kind `transformers_text`.

    Args:
        model: Folder, relative to the recipe, or name on the hub.
        revision: Commit or tag on the hub; None takes the newest, which may change under the recipe.
        dtype: `bfloat16`, `float16` or `float32`.
        device: `cpu`, `cuda`, `cuda:1` ...; None takes the first GPU where there is one.
        max_tokens: Most tokens of an answer, thoughts included.
        temperature: Of the sampling; 0 takes the likeliest token each time.
        template_args: Further arguments of the chat template, such as `enable_thinking: false`.
    """

    model: str
    revision: str | None = None
    dtype: str = "bfloat16"
    device: str | None = field(default=None, metadata=INCIDENTAL)
    max_tokens: int = 512
    temperature: float = 0.0
    template_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_model_keys(self.dtype)
        if self.max_tokens < 1 or self.temperature < 0:
            raise ConfigError(
                f"Expected `max_tokens` of at least 1 and `temperature` of at least 0, got {self.max_tokens} and "
                f"{self.temperature}"
            )


class TransformersText(TextModel):
    """A causal language model with a chat template."""

    Parameters = TransformersTextParameters

    def __init__(self, parameters: TransformersTextParameters, folder: Path) -> None:
        self._parameters = parameters
        self._folder = folder
        self._name = local_or_hub(parameters.model, folder)

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the texts."""
        given = self._parameters
        version = version_of(given.model, given.revision, self._folder)
        return {"kind": "transformers_text", "version": version, **deciding(given)}

    def run(self, requests: Sequence[TextRequest]) -> Iterator[tuple[TextRequest, TextReply | TextFailure]]:
        """Yield replies one by one.

        Raises:
            TextModelDownError: The model cannot be loaded, or has no chat template.
        """
        given = self._parameters
        for request in requests:
            tokenizer, model = self._loaded
            inputs = self._inputs(request).to(model.device)
            reply = generate(model, inputs, tokenizer.decode, given.max_tokens, given.temperature, request.seed)
            yield request, reply

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        need("transformers")
        # Only here: a finished set loads no weights.
        library: Any = importlib.import_module("transformers")
        given = self._parameters
        try:
            with quiet_libraries():
                tokenizer = library.AutoTokenizer.from_pretrained(self._name, revision=given.revision)
                model = library.AutoModelForCausalLM.from_pretrained(
                    self._name, revision=given.revision, dtype=given.dtype
                )
        except (OSError, ValueError, RuntimeError) as error:
            raise TextModelDownError(f"Expected a language model at {self._name!r}, got: {error}") from error
        if tokenizer.chat_template is None:
            raise TextModelDownError(f"Expected a model with a chat template, got none with {self._name!r}.")
        return tokenizer, model.to(pick_device(given.device)).eval()

    def _inputs(self, request: TextRequest) -> Any:
        from jinja2 import TemplateError

        messages = [
            {"role": "system", "content": request.instruction},
            {"role": "user", "content": request.text},
        ]
        try:
            return self._templated(messages)
        except TemplateError:
            # Some templates know no system role: the instruction then opens the user's turn.
            return self._templated([{"role": "user", "content": f"{request.instruction}\n\n{request.text}"}])

    def _templated(self, messages: list[dict[str, str]]) -> Any:
        tokenizer, _ = self._loaded
        return tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            **self._parameters.template_args,
        )
