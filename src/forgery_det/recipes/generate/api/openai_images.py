"""The OpenAI images API, and every server that speaks it.

`POST /images/generations` for text alone, `POST /images/edits` for an input image with or without a mask. An answer
carries its image as base64 (`b64_json`) or as an address to fetch (`url`). Serving engines such as vLLM-Omni and SGLang
speak the same protocol with further fields (`seed`, `num_inference_steps`, `guidance_scale`, `negative_prompt`): these
go into `extra_body`, and `send_seed: true` sends each job's seed.

OpenAI writes Content Credentials into its images and, since 2026-05-19, an invisible SynthID watermark
(help.openai.com, article 8912793). Both are noted with each image, because a detector may learn the watermark in place
of the generator.

Asked with httpx, not with the package `openai`: this is one POST, and the package decides for itself about retries
(it waits for a `Retry-After` of at most a minute, per request, while other threads go on), reads bodies of any size,
and parses what came into lenient models, so that hostile answers surface as missing attributes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from forgery_det.core.image_sniff import sniff_codec
from forgery_det.recipes.generate.api.answers import Answer
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.faults import ApiError, lost_answer
from forgery_det.recipes.generate.api.parameters import ApiParameters, check_extra_body
from forgery_det.recipes.generate.base import INCIDENTAL, Inputs
from forgery_det.recipes.generate.job import Job

if TYPE_CHECKING:
    from forgery_det.recipes.generate.api.wire import Reply, Wire

_BLOCK_CODES = frozenset({"moderation_blocked", "content_policy_violation", "content_filter", "contentFilter"})
_OWN_FIELDS = frozenset({"model", "prompt", "n", "image", "mask", "seed", "stream"})
_ACCEPTED = ("png", "jpeg", "webp", "avif", "gif")
_MAX_FACT_CHARACTERS = 2000
_DOWNLOAD_ATTEMPTS = 4
_SYNTHID = "in every image of this API since 2026-05-19 by OpenAI's documentation; not looked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIImagesParameters(ApiParameters):
    """Keys of an `openai_images` generator; what is None is not sent, so the model's default holds.

    Args:
        size: `1024x1024`, `auto`; which sizes there are depends on the model.
        quality: `low`, `medium`, `high`, `auto`; newer models have more.
        background: `transparent`, `opaque` or `auto`.
        output_format: `png`, `jpeg` or `webp`.
        output_compression: 0 to 100, for `jpeg` and `webp`.
        moderation: `auto` or `low`.
        style: Of retired models.
        response_format: `b64_json` or `url`, for servers that know both; the GPT image models refuse it.
        negative_prompt: Sent where it is given; a serving engine's extension.
        send_seed: Send each job's seed; the OpenAI service knows none and refuses it.
        extra_body: Further fields of the request, such as `num_inference_steps`; they decide the pixels.
        idempotency_header: Header that a gateway uses to recognise a repeated request; the OpenAI API documents none.
    """

    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    output_compression: int | None = None
    moderation: str | None = None
    style: str | None = None
    response_format: str | None = field(default=None, metadata=INCIDENTAL)
    negative_prompt: str | None = None
    send_seed: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    idempotency_header: str | None = field(default=None, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        ApiParameters.__post_init__(self)
        check_extra_body(self.extra_body, _OWN_FIELDS)


class OpenAIImagesGenerator(ApiGenerator):
    """Images from the OpenAI images API or a server that speaks it."""

    Parameters = OpenAIImagesParameters
    default_url: ClassVar[str] = "https://api.openai.com/v1"
    default_key_variable: ClassVar[str] = "OPENAI_API_KEY"

    def is_block(self, fault: ApiError) -> bool:
        """Tell whether OpenAI's or Azure's filter stopped the request."""
        return fault.code in _BLOCK_CODES or "safety system" in fault.detail

    def price_keys(self) -> tuple[str, ...]:
        """Return `quality/size`, with `*` where the model chooses."""
        chosen = (self.parameters.quality, self.parameters.size)
        return ("/".join("*" if name in (None, "auto") else str(name) for name in chosen),)

    def ask(self, job: Job, inputs: Inputs, wire: Wire, key: str) -> Answer:  # noqa: ARG002 - the wire carries the key
        """Ask for one image, once.

        Raises:
            ApiError: There is no usable answer.
        """
        body = self._body(job)
        headers = self._headers(job)
        if job.image_sha256 is None:
            path = "/images/generations"
            reply = wire.post_json(self.url + path, body, headers)
        else:
            path = "/images/edits"
            form = {name: value if isinstance(value, str) else _plain(value) for name, value in body.items()}
            reply = wire.post_form(self.url + path, form, _files(job, inputs), headers)
        hashes = {"image_sha256": job.image_sha256, "mask_sha256": job.mask_sha256}
        request = {"url": self.url + path, **body, **{name: sha for name, sha in hashes.items() if sha}}
        answer = read_answer(reply, request, wire, allow_http=self.url.startswith("http://"))
        if answer.kind != "image" or self.url != self.default_url:
            return answer
        return replace(answer, facts={**answer.facts, "notes": {"synthid": _SYNTHID}})

    def _body(self, job: Job) -> dict[str, Any]:
        given: OpenAIImagesParameters = self.parameters
        names = (
            "size", "quality", "background", "output_format", "output_compression", "moderation", "style",
            "response_format",
        )  # fmt: skip
        body: dict[str, Any] = {"model": job.model, "prompt": job.prompt or "", "n": 1}
        body |= {name: getattr(given, name) for name in names if getattr(given, name) is not None}
        if job.negative_prompt is not None:
            body["negative_prompt"] = job.negative_prompt
        if given.send_seed:
            body["seed"] = job.seed
        return body | dict(given.extra_body)

    def _headers(self, job: Job) -> dict[str, str]:
        name = self.parameters.idempotency_header
        return {name: job.job_id} if name else {}


def _plain(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _files(job: Job, inputs: Inputs) -> dict[str, tuple[str, bytes, str]]:
    files = {}
    for name, sha256 in (("image", job.image_sha256), ("mask", job.mask_sha256)):
        if sha256 is not None:
            data = inputs(sha256)
            codec = sniff_codec(data[:64], _ACCEPTED)
            files[name] = (f"{name}.{codec}", data, f"image/{codec}")
    return files


def read_answer(reply: Reply, request: Mapping[str, Any], wire: Wire, *, allow_http: bool) -> Answer:
    """Return what an answer in the OpenAI form holds: an image, an address, or words.

    Args:
        reply: The server's answer.
        request: What was asked, for the provenance.
        wire: For images that are to be fetched.
        allow_http: Whether an address may be `http`: only where the API itself is.

    Raises:
        ApiError: The answer breaks the form, or its image cannot be fetched.
    """
    content = reply.content
    if not isinstance(content, dict) or not isinstance(content.get("data", []), list | None):
        raise lost_answer("invalid_body", "expected an object with a list `data`, got something else")
    entry: Any = next(iter(content.get("data") or []), {})
    if not isinstance(entry, dict):
        raise lost_answer("invalid_body", "expected an object in `data`, got something else")
    facts = _answer_facts(content, entry, reply.headers)
    tokens = _tokens(content.get("usage"))
    if isinstance(entry.get("b64_json"), str) and entry["b64_json"]:
        return Answer("image", decode_base64(entry["b64_json"]), "", request, tokens, facts, reply.headers)
    if isinstance(entry.get("url"), str) and entry["url"]:
        data = _fetched(entry["url"], wire, allow_http=allow_http)
        return Answer("image", data, "", request, tokens, facts, reply.headers)
    words = entry.get("text") or entry.get("revised_prompt") or content.get("message") or "an answer without an image"
    return Answer("refused", None, str(words)[:_MAX_FACT_CHARACTERS], request, tokens, facts, reply.headers)


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64, with or without a `data:` prefix.

    Raises:
        ApiError: It is not base64.

    Example:
        >>> decode_base64("data:image/png;base64,aGk=")
        b'hi'
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise lost_answer("invalid_body", "expected base64, got something else") from None


def _fetched(url: str, wire: Wire, *, allow_http: bool) -> bytes:
    # The image is paid for: what can be tried again here costs nothing, another request for it would.
    for attempt in range(1, _DOWNLOAD_ATTEMPTS + 1):
        try:
            return wire.fetch(url, allow_http=allow_http)
        except ApiError as fault:
            if attempt == _DOWNLOAD_ATTEMPTS or not (fault.retry or fault.is_fatal):
                raise lost_answer("download", f"the image could not be fetched: {fault}") from None
    raise AssertionError("the last attempt returns or raises")


def _answer_facts(content: Mapping[str, Any], entry: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    facts = {
        "response_id": headers.get("x-request-id") or content.get("id"),
        "model_version_returned": content.get("model") or headers.get("openai-model"),
        "created": content.get("created"),
        "revised_prompt": entry.get("revised_prompt"),
        "usage": content.get("usage"),
        **{f"{name}_returned": content.get(name) for name in ("size", "quality", "background", "output_format")},
    }
    return {name: _short(value) for name, value in facts.items() if value not in (None, "", {})}


def _short(value: Any) -> Any:
    """Return a fact of a size that may be kept; what is longer becomes the start of its text."""
    if isinstance(value, int | float | bool):
        return value
    if isinstance(value, dict) and len(str(value)) <= _MAX_FACT_CHARACTERS:
        return value
    return str(value)[:_MAX_FACT_CHARACTERS]


def _tokens(usage: Any) -> dict[str, int]:
    """Return the counted tokens by kind; empty where the answer does not tell text from image."""
    if not isinstance(usage, dict):
        return {}
    given = usage.get("input_tokens_details")
    made = usage.get("output_tokens_details")
    # The images API makes images: what it does not tell apart are image tokens.
    output = made if isinstance(made, dict) else {"image_tokens": usage.get("output_tokens")}
    if not isinstance(given, dict):
        return {}
    counts = {
        "text_input": given.get("text_tokens"),
        "image_input": given.get("image_tokens"),
        "text_output": output.get("text_tokens"),
        "image_output": output.get("image_tokens"),
    }
    return {kind: count for kind, count in counts.items() if isinstance(count, int) and 0 <= count < 10**9}
