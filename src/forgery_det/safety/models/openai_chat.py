"""Models behind an OpenAI-compatible server: they read pictures and texts, and draw where the server serves images too.

Reading is `POST /chat/completions` with pictures as `data:` addresses, by the client of prompt sets. Drawing is the
images API of the same server (`POST /images/generations`), by the generator of recipes. So a unified model behind a
serving engine (BAGEL, Show-o2 ...) is one model with both functions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgery_det.core.errors import ConfigError, ImageError, SourceError
from forgery_det.recipes.generate.registry import ResolvedGenerator, resolve_generator
from forgery_det.recipes.prompting.base import TextFailure, TextModelDownError
from forgery_det.recipes.prompting.chat import ChatBudget, OpenAIChat, OpenAIChatParameters
from forgery_det.recipes.prompting.picture import data_url_of, shown_bytes
from forgery_det.safety.models.base import ModelContext, UnifiedModel
from forgery_det.safety.models.generator import Drawer
from forgery_det.safety.models.patience import Patience
from forgery_det.safety.models.replies import text_answer
from forgery_det.safety.types import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIChatModelParameters(OpenAIChatParameters):
    """Keys of a model of the kind `openai_chat`, besides those of the text model of prompt sets, which hold here too.

    Args:
        system: Said before every question, such as the system prompt that the product has; empty says nothing.
        images: Keys of an `openai_images` generator, for a server that draws as well; its `model`, `base_url`,
            `key_variable` and `concurrency` are those of the chat where it names none. None: the model only reads.
    """

    system: str = ""
    images: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        OpenAIChatParameters.__post_init__(self)
        if self.budget != ChatBudget():
            raise ConfigError("Expected the plan's `budget`, got one of a model's own")
        if self.usd_per_million and set(self.usd_per_million) != {"input", "output"}:
            raise ConfigError(f"Expected `usd_per_million` with input and output, got {dict(self.usd_per_million)}")
        if self.images is not None:
            self.drawing()

    def drawing(self) -> ResolvedGenerator:
        """Return the generator that `images` is.

        Raises:
            ConfigError: A key does not fit.
        """
        # A server of one's own may do without a key, which the generator wants to be told.
        has_key = self.base_url is None or bool(os.environ.get(self.key_variable))
        shared = {
            "name": "served",
            "kind": "openai_images",
            "model": self.model,
            "paradigm": "unknown",
            "base_url": self.base_url,
            "key_variable": self.key_variable if has_key else "",
            "concurrency": self.concurrency,
        }
        return resolve_generator(shared | dict(self.images or {}), "images")


class OpenAIChatModel(UnifiedModel):
    """A model behind a server; see the module."""

    Parameters = OpenAIChatModelParameters
    understands = True
    parameters: OpenAIChatModelParameters

    def __init__(self, parameters: OpenAIChatModelParameters, context: ModelContext) -> None:
        super().__init__(parameters, context)
        self._chat = OpenAIChat(parameters, context.folder)
        self._drawer = None if parameters.images is None else Drawer(parameters.drawing(), context)
        self.generates = self._drawer is not None
        self.max_concurrency = parameters.concurrency
        self._patience = Patience(context.name)

    def version(self) -> str:
        """Return the model's name at the server, and that of its images where it differs."""
        drawn = "" if self._drawer is None else f", {self._drawer.version()}"
        return f"{self.parameters.model}{drawn}"

    def identity(self) -> Mapping[str, Any]:
        """Return what decides texts and images; not the address, since a server that moves stays the same model."""
        drawn = None if self._drawer is None else self._drawer.identity()
        return {**self._chat.identity(), "images": drawn}

    def understand(self, images: Sequence[bytes], text: str, *, seed: int) -> Answer:
        """Return what the model says to pictures and a text.

        Raises:
            SourceError: The key, the model or the server is wrong, or it fails one request after another.
        """
        try:
            messages = self._messages(images, text)
        except ImageError as error:
            return Answer("failed", "text", detail=f"Expected a readable picture, got: {error}")
        try:
            reply = self._chat.say(messages, seed)
        except TextModelDownError as error:
            raise SourceError(f"{error} (model {self.name!r})") from error
        if isinstance(reply, TextFailure):
            return self._patience.note(text_answer(reply, {}))
        return self._patience.note(text_answer(reply, {"cost_usd": self._usd(reply.usage)}), answered=True)

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:
        """Return the image that the server draws.

        Raises:
            SourceError: as `understand`.
        """
        if self._drawer is None:
            return super().generate(text, images, seed=seed)
        return self._drawer.draw(text, images, seed)

    def _messages(self, images: Sequence[bytes], text: str) -> list[dict[str, Any]]:
        side_px = self.parameters.max_image_side_px
        addresses = [data_url_of(shown_bytes(image, side_px)) for image in images]
        shown = [{"type": "image_url", "image_url": {"url": address}} for address in addresses]
        content: Any = [*shown, {"type": "text", "text": text}] if shown else text
        system = [{"role": "system", "content": self.parameters.system}] if self.parameters.system else []
        return [*system, {"role": "user", "content": content}]

    def _usd(self, usage: Mapping[str, int]) -> float | None:
        """Return what an answer cost; None where prices or counts are not known."""
        price = self.parameters.usd_per_million
        if not price or not usage:
            return None
        tokens = {"input": usage.get("prompt_tokens", 0), "output": usage.get("completion_tokens", 0)}
        return sum(price[name] * count / 1e6 for name, count in tokens.items())
