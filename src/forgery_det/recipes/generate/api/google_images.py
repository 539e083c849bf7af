"""Google's Gemini image models through the package `google-genai` (`generate_content`).

Gemini answers with parts: an image among them is the image, words alone are a refusal, and a finish reason or a block
reason of its safety filters is a block. The package sits on our transport (`wire.LimitedTransport`) with its own
retries off, so limits, waits and faults are the same as everywhere.

Every image of these APIs carries an invisible SynthID watermark, as Google documents. That is noted with each image
(`notes.synthid`), because a detector may learn the watermark in place of the generator; it is not detected here.

Imagen had a call of its own, `generate_images`; Google shut its models down on 2026-08-17.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_sniff import sniff_codec
from forgery_det.recipes.generate.api.answers import Answer
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.faults import ApiError, lost_answer
from forgery_det.recipes.generate.api.parameters import ApiParameters
from forgery_det.recipes.generate.base import GeneratorContext, Inputs
from forgery_det.recipes.generate.job import Job, OutcomeKind

if TYPE_CHECKING:
    from google.genai import types

    from forgery_det.recipes.generate.api.wire import Wire

_BLOCKED = frozenset(
    {
        "BLOCKLIST", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_SAFETY", "MODEL_ARMOR",
        "PROHIBITED_CONTENT", "RECITATION", "SAFETY", "SPII",
    }
)  # fmt: skip
_BROKEN = frozenset({"MALFORMED_RESPONSE", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"})
_ACCEPTED = ("png", "jpeg", "webp")
_SYNTHID = "in every image of this API by Google's documentation; not looked for"
_MAX_WORDS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleImagesParameters(ApiParameters):
    """Keys of a `google_images` generator; what is None is not sent.

    Args:
        aspect_ratio: `1:1`, `16:9` and so on.
        image_size: `1K`, `2K` or `4K`, where the model offers them.
        person_generation: What Google allows about people, such as `ALLOW_ADULT`.
        send_seed: Send each job's seed, for models that take one.
        temperature: Sampling temperature.
    """

    aspect_ratio: str | None = None
    image_size: str | None = None
    person_generation: str | None = None
    send_seed: bool = False
    temperature: float | None = None


class GoogleImagesGenerator(ApiGenerator):
    """Images from Gemini models."""

    Parameters = GoogleImagesParameters
    default_url: ClassVar[str] = "https://generativelanguage.googleapis.com"
    default_key_variable: ClassVar[str] = "GEMINI_API_KEY"
    needs: ClassVar[tuple[str, ...]] = ("httpx", "google.genai")

    def __init__(self, parameters: GoogleImagesParameters, context: GeneratorContext) -> None:
        super().__init__(parameters, context)
        self._client: Any = None
        self._lock = threading.Lock()
        if context.model.startswith("imagen"):
            raise ConfigError(
                f"Expected a Gemini image model, got {context.model!r}: Google shut Imagen down on 2026-08-17."
            )

    def key_headers(self, key: str) -> dict[str, str]:
        """Return the header of the Gemini API."""
        return {"x-goog-api-key": key}

    def is_block(self, fault: ApiError) -> bool:  # noqa: ARG002 - the contract names it
        """Return False: Gemini's filters speak in answers of status 200."""
        return False

    def price_keys(self) -> tuple[str, ...]:
        """Return the image size."""
        return (self.parameters.image_size or "1K",)

    def close(self) -> None:
        """Drop the client of the run."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def ask(self, job: Job, inputs: Inputs, wire: Wire, key: str) -> Answer:
        """Ask for one image, once.

        Raises:
            ApiError: There is no usable answer.
        """
        client = self._opened(wire, key)
        from google.genai import types

        given: GoogleImagesParameters = self.parameters
        image_fields = ("aspect_ratio", "image_size", "person_generation")
        image = {name: getattr(given, name) for name in image_fields if getattr(given, name) is not None}
        settings: dict[str, Any] = {"response_modalities": ["IMAGE"]}
        if given.temperature is not None:
            settings["temperature"] = given.temperature
        if given.send_seed:
            settings["seed"] = job.seed
        contents: list[Any] = [types.Part.from_text(text=job.prompt or "")]
        for sha256 in (job.image_sha256, job.mask_sha256):
            if sha256 is not None:
                data = inputs(sha256)
                mime = f"image/{sniff_codec(data[:64], _ACCEPTED)}"
                contents.append(types.Part.from_bytes(data=data, mime_type=mime))
        config = types.GenerateContentConfig(**settings, image_config=types.ImageConfig(**image) if image else None)
        request = self._request(job, settings | image)
        with _parsing():
            response = client.models.generate_content(model=job.model, contents=contents, config=config)
            return _answer(response, request)

    def _opened(self, wire: Wire, key: str) -> Any:
        with self._lock:
            return self._client or self._open(wire, key)

    def _open(self, wire: Wire, key: str) -> Any:
        # Here, not above: importing the package takes seconds, and plans do without it.
        from google import genai
        from google.genai import types

        options = types.HttpOptions(
            base_url=self.url,
            api_version="v1beta",  # where the image settings are documented
            httpx_client=wire.api,
            # Never used; without one the package reads the certificate authorities three times over.
            httpx_async_client=wire.api_async,
            retry_options=types.HttpRetryOptions(attempts=1),  # ours are the only retries
        )
        self._client = genai.Client(api_key=key or "none", vertexai=False, http_options=options)
        return self._client

    def _request(self, job: Job, settings: Mapping[str, Any]) -> dict[str, Any]:
        hashes = {"image_sha256": job.image_sha256, "mask_sha256": job.mask_sha256}
        given = {name: sha for name, sha in hashes.items() if sha}
        return {"url": self.url, "model": job.model, "prompt": job.prompt, **settings, **given}


@contextmanager
def _parsing() -> Iterator[None]:
    """Turn what the package makes of a hostile answer into a fault; its texts, which may hold anything, stay unsaid."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # pydantic's is a ValueError
        raise lost_answer("invalid_body", f"expected an answer of the Gemini API, got {type(error).__name__}") from None


def _answer(response: types.GenerateContentResponse, request: Mapping[str, Any]) -> Answer:
    headers = _headers(response)
    usage = response.usage_metadata
    tokens = _tokens(usage)
    facts: dict[str, Any] = {
        "response_id": response.response_id,
        "model_version_returned": response.model_version,
        "usage": None if usage is None else usage.model_dump(mode="json", exclude_none=True),
    }
    facts = {name: value for name, value in facts.items() if value}
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        words = f"{_word(feedback.block_reason)} {feedback.block_reason_message or ''}".strip()
        return Answer("blocked", None, words[:_MAX_WORDS], request, tokens, facts, headers)
    if not response.candidates:
        raise lost_answer("invalid_body", "expected a candidate or a block reason, got neither")
    candidate = response.candidates[0]
    parts = [] if candidate.content is None else candidate.content.parts or []
    # A model that thinks may show drafts on the way; the answer is what is not a thought.
    images = [part.inline_data for part in parts if part.inline_data is not None and not part.thought]
    if images and images[-1].data:
        noted = facts | {"notes": {"synthid": _SYNTHID}}
        return Answer("image", images[-1].data, "", request, tokens, noted, headers)
    reason = _word(candidate.finish_reason)
    if not (reason or parts):
        raise lost_answer("invalid_body", "expected parts or a finish reason, got neither")
    if reason in _BROKEN:
        raise lost_answer("invalid_body", f"the model's own answer was broken: {reason}")
    said = " ".join(part.text for part in parts if part.text and not part.thought)
    words = f"{reason} {said or candidate.finish_message or 'an answer without an image'}".strip()
    kind: OutcomeKind = "blocked" if reason in _BLOCKED else "refused"
    return Answer(kind, None, words[:_MAX_WORDS], request, tokens, facts, headers)


def _word(value: Any) -> str:
    """Return an enumeration's name, also where the service knows one that the package does not."""
    return str(getattr(value, "value", value) or "")


def _headers(response: Any) -> dict[str, str]:
    sent = response.sdk_http_response
    return {} if sent is None or not sent.headers else {name.lower(): value for name, value in sent.headers.items()}


def _tokens(usage: types.GenerateContentResponseUsageMetadata | None) -> dict[str, int]:
    """Return the counted tokens by kind; thoughts are paid for as text, and so is all that is not told apart."""
    if usage is None:
        return {}
    counts = dict.fromkeys(("text_input", "image_input", "text_output", "image_output"), 0)
    sides = (
        ("input", usage.prompt_token_count, usage.prompt_tokens_details),
        ("output", usage.candidates_token_count, usage.candidates_tokens_details),
    )
    for side, total, details in sides:
        images = sum(entry.token_count or 0 for entry in details or [] if _word(entry.modality) == "IMAGE")
        counts[f"image_{side}"] = images
        counts[f"text_{side}"] = max(0, (total or 0) - images)
    counts["text_output"] += usage.thoughts_token_count or 0
    return {kind: count for kind, count in counts.items() if count < 10**9}
