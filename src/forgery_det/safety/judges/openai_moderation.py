"""A moderation endpoint, `POST /v1/moderations`: the OpenAI API, and every server that speaks it.

`omni-moderation-latest` reads texts and images and gives a score in [0, 1] for each of its categories. The verdict is
the server's own `flagged`, or, with `thresholds`, whether one of the named categories reaches its threshold: the
server's thresholds move with its model, ours do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.recipes.generate.api.faults import ApiError
from forgery_det.safety.judges.base import Judge, JudgeContext, Subject
from forgery_det.safety.judges.endpoint import Endpoint, shown_url
from forgery_det.safety.types import Judgement, Kind

_PUBLIC_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class OpenAIModerationParameters:
    """Keys of a judge of the kind `openai_moderation`.

    Args:
        model: Name of the model; `-latest` moves, and the version that answered is in `raw`.
        base_url: Address of the server up to `/v1`.
        key_variable: Environment variable with the key, never the key itself; empty for a server without keys.
        thresholds: Category -> least score in [0, 1] that is unsafe; empty takes the server's own verdict.
        max_image_side_px: Images are shrunk to this.
        max_attempts: Requests for one answer.
        timeout_s: How long one may take.
    """

    model: str = "omni-moderation-latest"
    base_url: str = _PUBLIC_URL
    key_variable: str = "OPENAI_API_KEY"
    thresholds: Mapping[str, float] = field(default_factory=dict)
    max_image_side_px: int = 1024
    max_attempts: int = 6
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for category, threshold in self.thresholds.items():
            if not 0.0 <= threshold <= 1.0:
                raise ConfigError(f"Expected thresholds in [0, 1], got {threshold} for {category!r}")
        if self.max_image_side_px < 16 or self.max_attempts < 1 or not self.timeout_s > 0:
            raise ConfigError(
                "Expected `max_image_side_px` of at least 16, `max_attempts` of at least 1 and `timeout_s` above 0, "
                f"got {self.max_image_side_px}, {self.max_attempts} and {self.timeout_s}"
            )


class OpenAIModerationJudge(Judge):
    """Calls unsafe what a moderation endpoint flags."""

    Parameters = OpenAIModerationParameters
    kinds: frozenset[Kind] = frozenset({"image", "text"})

    parameters: OpenAIModerationParameters

    def __init__(self, parameters: OpenAIModerationParameters, context: JudgeContext) -> None:
        super().__init__(parameters, context)
        given = parameters
        self._endpoint = Endpoint(self.name, given.base_url, given.key_variable, given.timeout_s, given.max_attempts)

    def version(self) -> str:
        """Return the model that is asked for and the thresholds."""
        limits = ", ".join(f"{name}>={limit:g}" for name, limit in sorted(self.parameters.thresholds.items()))
        return f"{self.parameters.model} {limits or 'own thresholds'}"

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def judge(self, subject: Subject) -> Judgement:
        """Return the verdict; the score is that of the highest category that counts.

        Raises:
            SourceError: The server cannot be had.
        """
        given = self.parameters
        try:
            if subject.answer.kind == "image":
                address = shown_url(subject.answer.image or b"", given.max_image_side_px)
                content: Any = [{"type": "image_url", "image_url": {"url": address}}]
            else:
                content = subject.answer.text or ""
            return self._read(self._endpoint.post("moderations", {"model": given.model, "input": content}))
        except (ApiError, ImageError) as error:
            return Judgement(None, None, {"error": str(error)})

    def _read(self, content: Any) -> Judgement:
        """Return what an answer says. Servers leave fields out, so each is looked for, none is trusted to be there."""
        results = content.get("results") if isinstance(content, dict) else None
        result = results[0] if isinstance(results, list) and results and isinstance(results[0], dict) else {}
        found = result.get("category_scores")
        scores = {
            str(name): float(score)
            for name, score in (found if isinstance(found, dict) else {}).items()
            if isinstance(score, int | float)
        }
        raw = {"answer": content, "model": content.get("model") if isinstance(content, dict) else None}
        flagged, limits = result.get("flagged"), self.parameters.thresholds
        unknown = sorted(set(limits) - set(scores))
        if unknown:
            return Judgement(None, None, {**raw, "error": f"the answer has no score for {', '.join(unknown)}"})
        if not limits and not isinstance(flagged, bool):
            return Judgement(None, None, {**raw, "error": "the answer has no `flagged`"})
        unsafe = any(scores[name] >= limit for name, limit in limits.items()) if limits else flagged
        counted = [scores[name] for name in limits or scores]
        return Judgement("unsafe" if unsafe else "safe", max(counted, default=None), raw)
