"""A guard that reads a policy: LlavaGuard, Llama Guard with vision, or any chat model that is told what is unsafe.

The model runs here (`model` alone: an image-text-to-text model of transformers) or behind an OpenAI-compatible chat
endpoint (`base_url`). Its answer is JSON with a `rating` (LlavaGuard; Helff et al. 2024, arXiv 2406.05113) or begins
with a line `safe` or `unsafe` (Llama Guard). Anything else is no verdict.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from PIL import Image

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image
from forgery_det.recipes.generate.api.faults import ApiError
from forgery_det.recipes.generate.local_model import check_model_keys
from forgery_det.recipes.prompting.local_model import generate
from forgery_det.safety.judges.base import Judge, JudgeContext, Subject
from forgery_det.safety.judges.endpoint import Endpoint, shown_url
from forgery_det.safety.judges.local import Loaded, load_model, model_version
from forgery_det.safety.types import Judgement, Kind, Verdict

_WORDS: dict[str, Verdict] = {"safe": "safe", "unsafe": "unsafe"}
_KINDS: dict[str, Kind] = {"image": "image", "text": "text"}


@dataclass(frozen=True, slots=True)
class LlavaGuardParameters:
    """Keys of a judge of the kind `llava_guard`.

    Args:
        model: Folder, relative to the plan, or name on the hub; with `base_url`, the server's name of it.
        policy: What is unsafe, and in which form to answer; empty for models whose chat template has it.
        kinds: What it judges: `image`, `text` or both.
        base_url: Address of a chat endpoint up to `/v1`; None runs the model here.
        key_variable: Environment variable with the key, never the key itself; empty for a server without keys.
        revision: Commit or tag on the hub; None takes the newest, which may change.
        dtype: `bfloat16`, `float16` or `float32`.
        device: `cpu`, `cuda`, `cuda:1` ...; None takes the first GPU where there is one.
        max_tokens: Most tokens of an answer.
        max_image_side_px: Images are shrunk to this.
        max_attempts: Requests for one answer of a server.
        timeout_s: How long one may take.
    """

    model: str
    policy: str = ""
    kinds: tuple[str, ...] = ("image",)
    base_url: str | None = None
    key_variable: str = ""
    revision: str | None = None
    dtype: str = "bfloat16"
    device: str | None = None
    max_tokens: int = 200
    max_image_side_px: int = 1024
    max_attempts: int = 6
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        check_model_keys(self.dtype)
        if not self.kinds or not set(self.kinds) <= set(_KINDS):
            raise ConfigError(f"Expected `kinds` of {', '.join(_KINDS)}, got {list(self.kinds)}")
        if min(self.max_tokens, self.max_attempts) < 1 or self.max_image_side_px < 16 or not self.timeout_s > 0:
            raise ConfigError(
                "Expected `max_tokens` and `max_attempts` of at least 1, `max_image_side_px` of at least 16 and "
                f"`timeout_s` above 0, got {self.max_tokens}, {self.max_attempts}, {self.max_image_side_px} and "
                f"{self.timeout_s}"
            )


class LlavaGuardJudge(Judge):
    """Asks a guard model and reads its rating."""

    Parameters = LlavaGuardParameters

    parameters: LlavaGuardParameters

    def __init__(self, parameters: LlavaGuardParameters, context: JudgeContext) -> None:
        super().__init__(parameters, context)
        given = parameters
        self.kinds = frozenset(_KINDS[kind] for kind in given.kinds)
        self._one_at_a_time = threading.Lock()
        self._local = Loaded(self._load)
        self._endpoint = None
        if given.base_url is not None:
            self._endpoint = Endpoint(
                self.name, given.base_url, given.key_variable, given.timeout_s, given.max_attempts
            )

    def version(self) -> str:
        """Return the model, its revision and the start of the policy's sha256."""
        given = self.parameters
        policy = sha256_bytes(given.policy.encode("utf-8"))[:12] if given.policy else "its own"
        if given.base_url is not None:
            return f"{given.model} at a server, policy {policy}"
        return f"{model_version(given.model, given.revision, self.context.folder)} policy {policy}"

    def close(self) -> None:
        """Close the connections."""
        if self._endpoint is not None:
            self._endpoint.close()

    def judge(self, subject: Subject) -> Judgement:
        """Return the verdict; `raw` has the answer as it came.

        Raises:
            SourceError: The model cannot be loaded, or its server cannot be had.
        """
        try:
            raw = self._ask_local(subject) if self._endpoint is None else self._ask_server(subject, self._endpoint)
        except (ApiError, ImageError) as error:
            return Judgement(None, None, {"error": str(error)})
        verdict = read_rating(raw["answer"])
        if verdict is None:
            return Judgement(None, None, {**raw, "error": "the answer has no rating"})
        return Judgement(verdict, None, raw)

    def _ask_server(self, subject: Subject, endpoint: Endpoint) -> dict[str, Any]:
        given = self.parameters
        if subject.answer.kind == "image":
            address = shown_url(subject.answer.image or b"", given.max_image_side_px)
            content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": address}}]
            content += [{"type": "text", "text": given.policy}] if given.policy else []
        else:
            content = [{"type": "text", "text": _told(given.policy, subject.answer.text)}]
        body = {
            "model": given.model, "messages": [{"role": "user", "content": content}], "temperature": 0,
            "max_tokens": given.max_tokens,
        }  # fmt: skip
        reply = endpoint.post("chat/completions", body)
        return {"answer": _content(reply), "model": reply.get("model") if isinstance(reply, dict) else None}

    def _ask_local(self, subject: Subject) -> dict[str, Any]:
        given = self.parameters
        content: list[dict[str, Any]] = []
        if subject.answer.kind == "image":
            picture = Image.fromarray(decode_image(subject.answer.image or b"").image_HWC)
            picture.thumbnail((given.max_image_side_px, given.max_image_side_px), Image.Resampling.LANCZOS)
            content = [{"type": "image", "image": picture}]
        text = _told(given.policy, subject.answer.text)
        content += [{"type": "text", "text": text}] if text else []
        processor, network = self._local.get()
        with self._one_at_a_time:
            inputs = processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            ).to(network.device, dtype=network.dtype)  # fmt: skip
            reply = generate(network, inputs, processor.decode, given.max_tokens, 0.0, 0)
        return {"answer": reply.text, "model": reply.model_version, "finish": reply.finish}

    def _load(self) -> tuple[Any, ...]:
        given = self.parameters
        classes = (("transformers", "AutoProcessor"), ("transformers", "AutoModelForImageTextToText"))
        return load_model(
            self.name, given.model, given.revision, self.context.folder, given.device, classes, dtype=given.dtype
        )


def read_rating(answer: str) -> Verdict | None:
    r"""Return the verdict of a guard's answer, None where it gives none.

    Example:
        >>> read_rating('{"rating": "Unsafe", "category": "O3"}'), read_rating("safe")
        ('unsafe', 'safe')
        >>> read_rating("unsafe\nS1"), read_rating("It depends.")
        ('unsafe', None)
    """
    start = answer.find("{")
    if start >= 0:
        try:
            # A guard may say more after its JSON, or write it between fences.
            found, _ = json.JSONDecoder().raw_decode(answer[start:])
        except (ValueError, RecursionError):
            found = {}
        ratings = {str(key).lower(): value for key, value in found.items()}
        if "rating" in ratings:
            return _WORDS.get(str(ratings["rating"]).strip().lower())
    lines = answer.strip().splitlines()
    return _WORDS.get(lines[0].strip(" .*\"'`#").lower()) if lines else None


def _told(policy: str, text: str | None) -> str:
    return "\n\n".join(part for part in (policy, text) if part)


def _content(reply: Any) -> str:
    """Return what a chat endpoint says. Servers leave fields out: each is looked for, none is trusted to be there."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""
