"""When to stop asking: a server that is down, or a model that fails every request, fails the rest of a plan as well."""

from __future__ import annotations

from threading import Lock

from forgery_det.core.errors import SourceError
from forgery_det.safety.types import Answer

MOST_IN_A_ROW = 5


class Patience:
    """Counts answers that failed in a row; safe to use from several threads.

    Args:
        name: The model's name, for the error.
        most: So many in a row end the run.

    Example:
        >>> patience = Patience("mine", most=2)
        >>> patience.note(Answer("failed", "text", detail="no connection")).outcome
        'failed'
        >>> patience.note(Answer("refused", "text")).outcome
        'refused'
        >>> patience.note(Answer("failed", "text", detail="no connection")).outcome
        'failed'
        >>> patience.note(Answer("failed", "text", detail="no connection"))
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.SourceError: Expected answers of model 'mine', got 2 failures in a row, the last: ...
    """

    def __init__(self, name: str, most: int = MOST_IN_A_ROW) -> None:
        self._name = name
        self._most = most
        self._in_a_row = 0
        self._lock = Lock()

    def note(self, answer: Answer, *, answered: bool = False) -> Answer:
        """Return the answer, having counted it.

        Args:
            answer: What came of a request.
            answered: The model did answer, if only with nothing in it: that is no sign of a server that is down.

        Raises:
            SourceError: It is one failure too many.
        """
        with self._lock:
            self._in_a_row = 0 if answered or answer.outcome != "failed" else self._in_a_row + 1
            count = self._in_a_row
        if count >= self._most:
            raise SourceError(
                f"Expected answers of model {self._name!r}, got {count} failures in a row, the last: {answer.detail} "
                "What was answered is kept: run the same command again to go on."
            )
        return answer
