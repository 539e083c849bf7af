"""Texts from a chat endpoint: the OpenAI API and every server that speaks it (`base_url`: vLLM, llama.cpp, Ollama ...).

Retries, `Retry-After` and backoff with jitter are those of the package `openai`. The key comes from an environment
variable and goes nowhere but into the request. An answer is final, be it a refusal; what failed after all retries is
asked for again by the next run.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.recipes.prompting.base import (
    INCIDENTAL,
    TextFailure,
    TextModel,
    TextModelDownError,
    TextReply,
    TextRequest,
    deciding,
)
from forgery_det.recipes.prompting.picture import data_url

_GIVE_UP_AFTER = 5
"""Requests in a row that may fail, each after all its retries, before the server counts as down."""

_WRONG_SET_UP = (401, 403, 404)
"""Statuses that every other request would get as well: key, rights, address or model are wrong."""


@dataclass(frozen=True, slots=True)
class ChatBudget:
    """What one run may ask for and spend; the rest waits for the next run.

    Args:
        requests: Most requests; None sets no limit.
        usd: Most money, by `usd_per_million`; None sets no limit. Requests under way when it is reached still count.
    """

    requests: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class OpenAIChatParameters:
    """Keys of a text model of the kind `openai_chat`.

    Args:
        model: Name of the model; a dated snapshot stays what it is.
        base_url: Address of the server up to `/v1`; None is the OpenAI API.
        key_variable: Environment variable with the key. A server at `base_url` may do without one.
        temperature: Of the sampling; None leaves it to the server, as some models demand.
        max_tokens: Most tokens of an answer, thoughts included.
        send_seed: Send the seed; servers that refuse unknown fields need False.
        max_image_side_px: Images that are to be described are shrunk to this.
        extra: Further fields of the request, such as `reasoning_effort`.
        concurrency: Requests in work at once.
        retries: How often a request is repeated after a fault.
        timeout_s: How long an answer may take.
        budget: What one run may ask for and spend.
        usd_per_million: Price of a million tokens: `input` and `output`.
    """

    model: str
    base_url: str | None = None
    key_variable: str = field(default="OPENAI_API_KEY", metadata=INCIDENTAL)
    temperature: float | None = None
    max_tokens: int = 1024
    send_seed: bool = True
    max_image_side_px: int = 1024
    extra: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = field(default=4, metadata=INCIDENTAL)
    retries: int = field(default=5, metadata=INCIDENTAL)
    timeout_s: float = field(default=120.0, metadata=INCIDENTAL)
    budget: ChatBudget = field(default_factory=ChatBudget, metadata=INCIDENTAL)
    usd_per_million: Mapping[str, float] = field(default_factory=dict, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("concurrency", 1), ("retries", 0), ("max_image_side_px", 16)):
            if getattr(self, name) < least:
                raise ConfigError(f"Expected `{name}` of at least {least}, got {getattr(self, name)}")
        if self.budget.usd is not None and set(self.usd_per_million) != {"input", "output"}:
            raise ConfigError(
                f"Expected `usd_per_million` with input and output where `budget.usd` is given, got "
                f"{dict(self.usd_per_million)}"
            )


class OpenAIChat(TextModel):
    """A chat endpoint; expands texts, and describes images where its model can."""

    Parameters = OpenAIChatParameters
    sees = True

    def __init__(self, parameters: OpenAIChatParameters, folder: Path) -> None:
        del folder
        self._parameters = parameters
        self._client: Any = None
        self._opening = threading.Lock()
        self._budget = _Budget(parameters)

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the texts; not the address, since a server that moves stays the same model."""
        given = deciding(self._parameters)
        del given["base_url"]
        return {"kind": "openai_chat", **given}

    def run(self, requests: Sequence[TextRequest]) -> Iterator[tuple[TextRequest, TextReply | TextFailure]]:
        """Yield replies as they come.

        Raises:
            TextModelDownError: The key, the model or the server is wrong, or fails every request.
        """
        if not requests:
            return
        self._open()
        failures = 0
        pool = ThreadPoolExecutor(self._parameters.concurrency)
        try:
            futures = {pool.submit(self._ask, request): request for request in requests}
            for future in as_completed(futures):
                reply = future.result()
                failed = isinstance(reply, TextFailure) and reply.reason == "expansion_failed"
                failures = failures + 1 if failed else 0
                if isinstance(reply, TextFailure) and failures >= _GIVE_UP_AFTER:
                    raise TextModelDownError(f"{failures} requests in a row failed, the last one with: {reply.detail}")
                yield futures[future], reply
        finally:
            # Ctrl-C, an error or an early end: what has not been sent is not sent.
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self) -> None:
        with self._opening:
            self._open_once()

    def _open_once(self) -> None:
        if self._client is not None:
            return
        if importlib.util.find_spec("openai") is None:
            raise TextModelDownError("Expected the package `openai`, got none: install `forgery-det[generate]`.")
        # Only here: importing openai takes a second.
        import openai

        given = self._parameters
        key = os.environ.get(given.key_variable)
        if not key and given.base_url is None:
            raise TextModelDownError(f"Expected the key in the environment variable {given.key_variable}, got none.")
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=given.base_url,
            timeout=given.timeout_s,
            max_retries=given.retries,
        )

    def _ask(self, request: TextRequest) -> TextReply | TextFailure:
        try:
            messages = self._messages(request)
        except (ImageError, OSError) as error:
            return TextFailure("expansion_failed", f"Expected a readable image, got: {error}")
        return self.say(messages, request.seed)

    def say(self, messages: Sequence[Mapping[str, Any]], seed: int) -> TextReply | TextFailure:
        """Return the server's next turn in a conversation; safe to call from several threads.

        Args:
            messages: As the protocol has them: `role` and `content` each.
            seed: Of the sampling.

        Raises:
            TextModelDownError: The key, the model or the server is wrong.
        """
        self._open()
        import openai

        body = self._body(messages, seed)
        said = ""
        for _ in range(self._parameters.retries + 1):
            if (spent := self._budget.take()) is not None:
                return TextFailure("expansion_budget", spent)
            try:
                reply = _reply(self._client.chat.completions.create(**body))
            except openai.APIStatusError as error:
                return _refused(error, self._client.api_key)
            except openai.APIConnectionError as error:
                return TextFailure("expansion_failed", f"Expected an answer, got {type(error).__name__}: {error}")
            except (openai.APIError, ValueError, TypeError, AttributeError) as error:
                # Half a body, or none of ours, under status 200: the package does not repeat that.
                said = f"{type(error).__name__}: {error}"
                continue
            self._budget.pay(reply.usage)
            return reply
        return TextFailure("expansion_failed", f"Expected an answer in JSON, got {said}")

    def _messages(self, request: TextRequest) -> list[dict[str, Any]]:
        content: Any = request.text
        if request.image is not None:
            address = data_url(request.image, self._parameters.max_image_side_px)
            content = [{"type": "image_url", "image_url": {"url": address}}]
        return [{"role": "system", "content": request.instruction}, {"role": "user", "content": content}]

    def _body(self, messages: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
        given = self._parameters
        body: dict[str, Any] = {
            "model": given.model,
            "messages": [dict(message) for message in messages],
            # The OpenAI API renamed the field; other servers know the old name, some of them only that.
            "max_completion_tokens" if given.base_url is None else "max_tokens": given.max_tokens,
        }
        if given.temperature is not None:
            body["temperature"] = given.temperature
        if given.send_seed:
            body["seed"] = seed
        if given.extra:
            body["extra_body"] = dict(given.extra)
        return body


class _Budget:
    """Counts requests and money of one run."""

    def __init__(self, parameters: OpenAIChatParameters) -> None:
        self._given = parameters
        self._lock = threading.Lock()
        self._requests, self._usd = 0, 0.0

    def take(self) -> str | None:
        """Count a request; return a sentence instead if the budget of this run does not hold another."""
        with self._lock:
            most = self._given.budget
            if most.requests is not None and self._requests >= most.requests:
                return f"The budget of {most.requests} requests a run is spent; the next run goes on."
            if most.usd is not None and self._usd >= most.usd:
                return f"The budget of {most.usd:g} USD a run is spent; the next run goes on."
            self._requests += 1
        return None

    def pay(self, usage: Mapping[str, int]) -> None:
        """Add what an answer cost."""
        price = self._given.usd_per_million
        tokens = {"input": usage.get("prompt_tokens", 0), "output": usage.get("completion_tokens", 0)}
        with self._lock:
            self._usd += sum(price.get(name, 0.0) * count / 1e6 for name, count in tokens.items())


def _reply(answer: Any) -> TextReply:
    """Return the answer as stored. Servers leave fields out, so each is looked for, none is trusted to be there."""
    choice = answer.choices[0] if answer.choices else None
    message = getattr(choice, "message", None)
    usage = getattr(answer, "usage", None)
    counts = {name: getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")}
    version = [answer.model or "", getattr(answer, "system_fingerprint", None) or ""]
    return TextReply(
        text=getattr(message, "content", None) or "",
        finish=getattr(choice, "finish_reason", None) or "",
        refusal=getattr(message, "refusal", None),
        model_version=" ".join(part for part in version if part),
        response_id=answer.id or "",
        usage={name: count for name, count in counts.items() if isinstance(count, int)},
    )


def _refused(error: Any, key: str) -> TextReply | TextFailure:
    """Return what a status above 399 means, after the package made all its retries.

    Raises:
        TextModelDownError: Every other request would get it as well.
    """
    # A server may repeat the key in its complaint, and complaints are written down.
    said = f"status {error.status_code}: {error.message}".replace(key, "[key]")
    if error.status_code == 400 and error.code in ("content_filter", "content_policy_violation", "moderation_blocked"):
        return TextReply("", finish="content_filter", refusal=said)
    if error.status_code in _WRONG_SET_UP or error.code in ("insufficient_quota", "invalid_api_key"):
        raise TextModelDownError(f"Expected an answer, got {said}")
    return TextFailure("expansion_failed", f"Expected an answer, got {said}")
