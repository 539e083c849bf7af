"""Captions made from the real images of a source of the same recipe, by a vision-language model.

The caption's fakes share `content_id` and `source_id` with the photograph: they make a pair, and stay in one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgery_det.recipes.prompt_sets import ExpandSpec, PromptContext
from forgery_det.recipes.prompting.base import PromptKind, PromptRow
from forgery_det.recipes.prompting.schema import parse_text_model

DEFAULT_INSTRUCTION = (
    "Describe the photograph in one plain sentence of at most twenty words: what is in it, what it does, and where. Do "
    "not mention that it is a photograph. Answer with the sentence alone."
)
"""What a vision-language model is told where a recipe gives no instruction."""


@dataclass(frozen=True, slots=True)
class PromptCaptionsParameters:
    """Keys of `from` with the kind `prompt_captions`.

    Args:
        images: Id of the source whose images are described.
        by: The model, by the keys of a text model that describes images.
    """

    images: str
    by: Any


class PromptCaptions(PromptKind):
    """Every image that a source brought into the dataset, in the order of the keys."""

    Parameters = PromptCaptionsParameters

    def __init__(self, parameters: PromptCaptionsParameters, folder: Path, context: PromptContext) -> None:
        del folder
        self._source_id = parameters.images
        self._context = context

    @classmethod
    def writer(cls, parameters: PromptCaptionsParameters, where: str) -> ExpandSpec | None:
        """Return the model that describes.

        Raises:
            ConfigError: It is unknown, a key does not fit, or it sees no images.
        """
        return parse_text_model(parameters.by, f"{where}.by", sees=True, default_instruction=DEFAULT_INSTRUCTION)

    def rows(self) -> Iterator[PromptRow]:
        """Yield one row an image, without a text."""
        for image in self._context.images(self._source_id):
            place = f"source {self._source_id!r}, item {image.key!r}"
            yield PromptRow(place, content_id=image.content_id, source_id=image.source_id, image=image)
