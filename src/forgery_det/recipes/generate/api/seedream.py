"""Seedream by ByteDance: the images API of Ark (Volcengine) and ModelArk (BytePlus).

`POST /images/generations` as at OpenAI, with other fields: `seed`, `watermark` (on unless it is switched off: the words
"AI generated" in a corner, which any detector would learn, so it is off here), `sequential_image_generation` (one
prompt, several images: off here), input images as data URLs in `image`. An image that the filter stopped may come as a
400, or as an `error` in place of the image within a 200.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from forgery_det.core.image_sniff import sniff_codec
from forgery_det.recipes.generate.api.answers import Answer
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.faults import ApiError
from forgery_det.recipes.generate.api.openai_images import read_answer
from forgery_det.recipes.generate.api.parameters import ApiParameters, check_extra_body
from forgery_det.recipes.generate.base import INCIDENTAL, Inputs
from forgery_det.recipes.generate.job import Job

if TYPE_CHECKING:
    from forgery_det.recipes.generate.api.wire import Wire

_BLOCK_WORDS = ("SensitiveContentDetected", "RiskDetection", "PolicyViolation")
_OWN_FIELDS = frozenset({"model", "prompt", "image", "seed", "stream", "watermark", "sequential_image_generation"})
_ACCEPTED = ("png", "jpeg", "webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedreamParameters(ApiParameters):
    """Keys of a `seedream` generator; what is None is not sent.

    Args:
        size: `2K`, `4K` or pixels such as `2048x2048`; which ones there are depends on the model.
        guidance_scale: Of Seedream 3.
        watermark: Put the visible words "AI generated" into the image.
        send_seed: Send each job's seed; Seedream 3 takes one.
        output_format: `png` or `jpeg`, for models that know it.
        response_format: `b64_json`, or `url` for an address that is fetched at once.
        extra_body: Further fields of the request, such as `optimize_prompt_options`; they decide the pixels.
    """

    size: str | None = None
    guidance_scale: float | None = None
    watermark: bool = False
    send_seed: bool = False
    output_format: str | None = None
    response_format: str = field(default="b64_json", metadata=INCIDENTAL)
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ApiParameters.__post_init__(self)
        check_extra_body(self.extra_body, _OWN_FIELDS)


class SeedreamGenerator(ApiGenerator):
    """Images from ByteDance's Seedream models."""

    Parameters = SeedreamParameters
    default_url: ClassVar[str] = "https://ark.ap-southeast.bytepluses.com/api/v3"
    default_key_variable: ClassVar[str] = "ARK_API_KEY"

    def is_block(self, fault: ApiError) -> bool:
        """Tell whether the content filter stopped the request."""
        return _is_block_code(fault.code)

    def price_keys(self) -> tuple[str, ...]:
        """Return the size."""
        return (self.parameters.size,) if self.parameters.size else ()

    def ask(self, job: Job, inputs: Inputs, wire: Wire, key: str) -> Answer:  # noqa: ARG002 - the wire carries the key
        """Ask for one image, once.

        Raises:
            ApiError: There is no usable answer.
        """
        url = f"{self.url}/images/generations"
        body = self._body(job)
        request = {"url": url, **body}
        if job.image_sha256 is not None:
            data = inputs(job.image_sha256)
            codec = sniff_codec(data[:64], _ACCEPTED)
            body["image"] = f"data:image/{codec};base64,{base64.b64encode(data).decode('ascii')}"
            request["image_sha256"] = job.image_sha256
        reply = wire.post_json(url, body, {})
        stopped = _entry_error(reply.content)
        if stopped is not None:
            code, message = stopped
            if not _is_block_code(code):
                raise ApiError("server_error", f"{code} {message}"[:500], retry=True, code=code)
            return Answer("blocked", None, f"{code} {message}"[:500], request, {}, {"code": code}, reply.headers)
        return read_answer(reply, request, wire, allow_http=self.url.startswith("http://"))

    def _body(self, job: Job) -> dict[str, Any]:
        given: SeedreamParameters = self.parameters
        body: dict[str, Any] = {
            "model": job.model,
            "prompt": job.prompt or "",
            "response_format": given.response_format,
            "sequential_image_generation": "disabled",
            "watermark": given.watermark,
        }
        if job.model.startswith(("seedream-3", "doubao-seedream-3")):
            del body["sequential_image_generation"]  # came with Seedream 4
        for name in ("size", "guidance_scale", "output_format"):
            if getattr(given, name) is not None:
                body[name] = getattr(given, name)
        if given.send_seed:
            body["seed"] = job.seed
        return body | dict(given.extra_body)


def _is_block_code(code: str) -> bool:
    return any(word in code for word in _BLOCK_WORDS)


def _entry_error(content: Any) -> tuple[str, str] | None:
    """Return code and message of the error that stands in place of the image."""
    data = content.get("data") if isinstance(content, dict) else None
    entry = data[0] if isinstance(data, list) and data else content
    error = entry.get("error") if isinstance(entry, dict) else None
    if not isinstance(error, dict):
        return None
    return str(error.get("code", "")), str(error.get("message", ""))
