"""The contract of a model under test.

A unified model understands and generates; a plain generator only generates, a plain reader only understands. Refusals
and blocks are answers, not errors: they are what is measured.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgery_det.recipes.prompting.base import deciding
from forgery_det.safety.types import Answer, Pathway


@dataclass(frozen=True, slots=True)
class ModelContext:
    """What a model may use besides its parameters.

    Args:
        name: Name in the plan; the table's `model`.
        paradigm: As in the manifest: `diffusion`, `mllm` ...
        folder: Relative paths start here: the plan's folder.
        cache: Folder of downloads.
    """

    name: str
    paradigm: str
    folder: Path
    cache: Path


class UnifiedModel(ABC):
    """A kind of model under test.

    A subclass defines `Parameters`, a frozen dataclass that is the schema of its keys in a plan, and one or both of
    `understand` and `generate`, named in `understands` and `generates`. Building is cheap; weights are loaded and
    servers asked at the first call. Nothing that a model makes may be written to disk by it: the run decides that.
    """

    Parameters: ClassVar[type]

    understands: bool = False
    generates: bool = False
    max_concurrency: int = 1
    """Calls that may be in work at once."""

    def __init__(self, parameters: Any, context: ModelContext) -> None:
        self.parameters = parameters
        self.context = context

    @property
    def name(self) -> str:
        """Name in the plan."""
        return self.context.name

    def version(self) -> str:
        """Return which model it is, for people: model id and revision."""
        return ""

    def identity(self) -> Mapping[str, Any]:
        """Return whatever decides its answers besides the question, as JSON values.

        Parameters with the metadata `INCIDENTAL`, such as a time limit, do not: changing them walks nothing again.
        """
        return {"version": self.version(), **deciding(self.parameters)}

    def close(self) -> None:  # noqa: B027 - most kinds hold nothing
        """Let go of weights and connections; called when the last walk of a run is done. It may be asked again."""

    def understand(self, images: Sequence[bytes], text: str, *, seed: int) -> Answer:
        """Return the text that the model writes, having seen encoded images (maybe none) and a text.

        Raises:
            SourceError: The model cannot be loaded or reached: no call can succeed.
        """
        raise NotImplementedError(f"{type(self).__name__} does not understand")

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:
        """Return the image that the model draws for a text (and encoded images).

        Raises:
            SourceError: as `understand`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not generate")

    def can_walk(self, pathway: Pathway) -> bool:
        """Tell whether the model has the functions that a pathway needs."""
        needs_reading = pathway != "generation"
        needs_drawing = pathway != "understanding"
        return (self.understands or not needs_reading) and (self.generates or not needs_drawing)
