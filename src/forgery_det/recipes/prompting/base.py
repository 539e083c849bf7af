"""The contracts of prompt sets: rows of prompts as given, and models that turn a request into text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ForgeryDetError
from forgery_det.recipes.prompt_sets import ContentImage, ExpandSpec, PromptContext

INCIDENTAL = {"incidental": True}
"""Metadata of parameters that do not decide the text, such as a time limit: changing them repeats no request."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One idea as its source gives it.

    Args:
        place: Where it stands, for errors: `captions.csv line 3`.
        texts: Level -> text, for the levels that the source gives; empty where the text is still to be written.
        content_id: Pairs it with other images of the same content; None where the source does not say.
        source_id: Group that must not straddle a split; None where the source does not say.
        image: The image that is to be described, for captions.
    """

    place: str
    texts: Mapping[str, str] = field(default_factory=dict)
    content_id: str | None = None
    source_id: str | None = None
    image: ContentImage | None = None


class PromptKind(ABC):
    """Where prompts come from. `Parameters` is a frozen dataclass, the schema of the key `from` in a recipe."""

    Parameters: ClassVar[type]

    @abstractmethod
    def __init__(self, parameters: Any, folder: Path, context: PromptContext) -> None: ...

    @abstractmethod
    def rows(self) -> Iterator[PromptRow]:
        """Yield the rows in the same order in every run.

        Raises:
            ConfigError: The recipe names something that is not there.
            SourceError: The prompts cannot be read.
        """

    @classmethod
    def writer(cls, parameters: Any, where: str) -> ExpandSpec | None:
        """Return what writes the texts of rows that only hold an image; None where the source gives texts.

        Raises:
            ConfigError: The recipe names a model that cannot do it.
        """
        del parameters, where
        return None

    @staticmethod
    def files(parameters: Any, folder: Path) -> tuple[Path, ...]:
        """Return the local files whose content belongs to the recipe and enters its digest."""
        del parameters, folder
        return ()


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One text to be written.

    Args:
        instruction: What the model is told to do.
        text: The prompt that it is to expand; empty where it is to describe an image.
        seed: Seed of the sampling.
        image: The image that it is to describe.
    """

    instruction: str
    text: str
    seed: int
    image: ContentImage | None = None

    def key(self, model: Mapping[str, Any]) -> str:
        """Return the id of the request to a model with this identity: equal exactly where a repetition is a waste.

        Example:
            >>> request = TextRequest("Describe.", "a fox", 0)
            >>> request.key({"model": "m"}) == request.key({"model": "m"}) != request.key({"model": "n"})
            True
        """
        image = None if self.image is None else self.image.sha256
        deciding = [dict(model), self.instruction, self.text, self.seed, image]
        return sha256_bytes(canonical_json(deciding).encode("utf-8"))


@dataclass(frozen=True, slots=True)
class TextReply:
    """What a model answered.

    Args:
        text: The text as it came; empty where it gave none.
        finish: `stop`, `length` (cut off by the limit) or `content_filter`; empty where the model does not say.
        refusal: The model's own statement that it refuses; None where it made none.
        model_version: The version that the server or the files name.
        response_id: The server's id of the answer; empty for local models.
        usage: Tokens read and written, by name.
    """

    text: str
    finish: str = ""
    refusal: str | None = None
    model_version: str = ""
    response_id: str = ""
    usage: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextFailure:
    """A request that came to nothing, and is made again by the next run.

    Args:
        reason: Stable word: `expansion_failed` or `expansion_budget`.
        detail: A sentence for people.
    """

    reason: str
    detail: str


class TextModelDownError(ForgeryDetError):
    """No request can succeed: the model, the key or the server is wrong, so that trying the rest is a waste."""


class TextModel(ABC):
    """Writes text. `Parameters` is a frozen dataclass, the schema of its keys in a recipe.

    A model is opened when the first request is made, so that a finished set loads no weights and asks for no key.
    """

    Parameters: ClassVar[type]

    reads: ClassVar[bool] = True
    """True when requests may hold a text to expand."""

    sees: ClassVar[bool] = False
    """True when requests may hold an image to describe."""

    @classmethod
    def takes_instruction(cls, parameters: Any) -> bool:
        """Return whether the recipe says what the model is told; otherwise it does the one thing it was made for."""
        del parameters
        return True

    @abstractmethod
    def __init__(self, parameters: Any, folder: Path) -> None: ...

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return whatever decides the text besides the request, as JSON values; nothing secret."""

    @abstractmethod
    def run(self, requests: Sequence[TextRequest]) -> Iterator[tuple[TextRequest, TextReply | TextFailure]]:
        """Yield each request with its reply as soon as it is there, in any order.

        Raises:
            TextModelDownError: No request can succeed.
        """


def deciding(parameters: Any) -> dict[str, Any]:
    """Return the parameters of a text model that decide its texts, as JSON values.

    Example:
        >>> @dataclass(frozen=True)
        ... class Parameters:
        ...     model: str = "m"
        ...     timeout_s: float = field(default=60.0, metadata=INCIDENTAL)
        >>> deciding(Parameters())
        {'model': 'm'}
    """
    plain = asdict(parameters)
    return {one.name: plain[one.name] for one in fields(parameters) if not one.metadata.get("incidental")}
