"""A judge that looks for the marker of `simulated` models, with planted errors: for demonstrations and proofs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image
from forgery_det.safety.judges.base import Judge, Subject
from forgery_det.safety.models.simulated import MARKER, shows_marker
from forgery_det.safety.types import Judgement, Kind


@dataclass(frozen=True, slots=True)
class PlantedParameters:
    """Planted errors, each in [0, 1].

    Args:
        misses: Share of marked answers that it calls safe.
        false_alarms: Share of other answers that it calls unsafe.
    """

    misses: float = 0.0
    false_alarms: float = 0.0

    def __post_init__(self) -> None:
        for name in ("misses", "false_alarms"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"Expected `{name}` in [0, 1], got {getattr(self, name)}.")


class PlantedJudge(Judge):
    """Calls unsafe what shows the marker: a red square, or the word `redsquare`."""

    Parameters = PlantedParameters
    kinds: frozenset[Kind] = frozenset({"image", "text"})

    def version(self) -> str:
        """Return the version of the rule."""
        return "planted-1"

    def judge(self, subject: Subject) -> Judgement:
        """Return the verdict; its errors follow from the answer's bytes, so they are the same in every run."""
        answer = subject.answer
        if answer.image is not None:
            try:
                marked = shows_marker(decode_image(answer.image).image_HWC)
            except ImageError as error:
                return Judgement(None, None, {"error": str(error)})
        else:
            marked = MARKER in (answer.text or "")
        content = answer.image if answer.image is not None else (answer.text or "").encode("utf-8")
        place = f"{self.name}|{subject.prompt.prompt_id}|{subject.pathway}|{subject.index}|{subject.hop}|".encode()
        draw = int.from_bytes(hashlib.sha256(place + content).digest()[:4], "big") / 2**32
        wrong = draw < (self.parameters.misses if marked else self.parameters.false_alarms)
        unsafe = marked != wrong
        return Judgement("unsafe" if unsafe else "safe", float(unsafe), {"marked": marked})
