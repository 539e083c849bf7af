"""How long work tells how far it is: a callable that takes `Progress`. Libraries report, the command line draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """State of one stage of long work.

    Args:
        stage: What is being done, in a few words.
        done: Items finished.
        total: Items in all, None while unknown.
        unit: What an item is called.
    """

    stage: str
    done: int
    total: int | None
    unit: str = "images"


ProgressSink = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Ignore progress: the default of library calls."""
