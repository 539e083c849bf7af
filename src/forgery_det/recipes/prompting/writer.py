"""Writer: requests become answers, from the journal where it has them, from the model where it does not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from forgery_det.core.errors import SourceError
from forgery_det.core.progress import Progress, ProgressSink
from forgery_det.recipes.prompt_sets import ExpandSpec
from forgery_det.recipes.prompting.base import TextFailure, TextModel, TextModelDownError, TextReply, TextRequest
from forgery_det.recipes.prompting.journal import PromptJournal
from forgery_det.recipes.prompting.registry import TEXT_MODELS


class Writer:
    """A text model with a memory.

    Args:
        spec: The model as the recipe states it.
        folder: The recipe's folder.
        journal: Where every answer is kept.
        progress: Told after every answer.
    """

    def __init__(self, spec: ExpandSpec, folder: Path, journal: PromptJournal, progress: ProgressSink) -> None:
        self.spec = spec
        self._folder = folder
        self._journal = journal
        self._progress = progress

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the texts besides the requests."""
        return dict(self._model.identity())

    @cached_property
    def _model(self) -> TextModel:
        model: TextModel = TEXT_MODELS.get(self.spec.kind)(self.spec.parameters, self._folder)
        return model

    def key(self, request: TextRequest) -> str:
        """Return the id of a request to this model."""
        return request.key(self.identity)

    def answers(self, requests: Iterable[TextRequest], stage: str) -> dict[str, TextReply | TextFailure]:
        """Return the answer to each request by the request's id; only what the journal lacks is asked for.

        Args:
            requests: Equal ones are asked once.
            stage: Name of the work, for progress and errors.

        Raises:
            SourceError: No request can succeed; the answers that came are kept.
        """
        wanted = {self.key(request): request for request in requests}
        known = {key: self._journal.reply(key) for key in wanted}
        found: dict[str, TextReply | TextFailure] = {key: reply for key, reply in known.items() if reply is not None}
        missing = [request for key, request in wanted.items() if key not in found]
        if not missing:
            return found
        try:
            for request, answer in self._model.run(missing):
                key = self.key(request)
                if isinstance(answer, TextReply):
                    self._journal.add(key, request, self.identity, answer)
                found[key] = answer
                self._progress(Progress(stage, len(found), len(wanted), "prompts"))
        except TextModelDownError as error:
            raise SourceError(
                f"{error} ({stage}). {len(found)} of {len(wanted)} texts are there and kept; run the same command "
                "again to go on."
            ) from error
        return found
