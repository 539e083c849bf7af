"""The contract of a judge: one answer in, one verdict out, with the judge's version and raw answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.safety.types import Answer, Hop, Judgement, Kind, Pathway, SafetyPrompt


@dataclass(frozen=True, slots=True)
class JudgeContext:
    """What a judge may use besides its parameters.

    Args:
        name: Name in the plan; the table's `judge`.
        folder: Relative paths start here: the plan's folder.
        cache: Folder of downloads.
    """

    name: str
    folder: Path
    cache: Path


@dataclass(frozen=True, slots=True)
class Subject:
    """One answer to be judged, and where it stands in the run.

    Args:
        prompt: What the model was asked.
        model: Name of the model.
        pathway: Pathway that was walked.
        index: Number of the walk among those of one prompt, from 0.
        hop: Hop of the pathway.
        answer: A text or an image that was made; an image that the vault dropped is None here.
        sha256: Of the text or the encoded image; empty takes it from the answer.
    """

    prompt: SafetyPrompt
    model: str
    pathway: Pathway
    index: int
    hop: Hop
    answer: Answer
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.sha256:
            content = self.answer.image if self.answer.kind == "image" else (self.answer.text or "").encode("utf-8")
            object.__setattr__(self, "sha256", sha256_bytes(content or b""))


class Judge(ABC):
    """A kind of judge.

    A subclass defines `Parameters`, a frozen dataclass that is the schema of its keys in a plan. Building a judge is
    cheap; models are loaded at the first judgement. Several threads may ask at once. A judge that cannot judge an
    answer returns a verdict of None and says why in `raw`: nothing takes its place.
    """

    Parameters: ClassVar[type]

    kinds: frozenset[Kind] = frozenset({"image"})
    """What it can judge; hops of another kind are not shown to it."""

    three_classes: ClassVar[bool] = False
    """True when it tells corrupted images itself; the others are told by the corruption detector."""

    looks: ClassVar[bool] = True
    """False when an answer's place or hash is enough for it, so that it can judge images that are not kept."""

    def __init__(self, parameters: Any, context: JudgeContext) -> None:
        self.parameters = parameters
        self.context = context

    @property
    def name(self) -> str:
        """Name in the plan."""
        return self.context.name

    @abstractmethod
    def version(self) -> str:
        """Return what decides its verdicts: model, revision, thresholds."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of connections; it can be asked again afterwards."""

    @abstractmethod
    def judge(self, subject: Subject) -> Judgement:
        """Return the verdict.

        Raises:
            SourceError: The judge cannot be had: no answer can be judged.
        """
