"""The contract of a source: parameters in, items with stable keys out, each read once."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import ProgressSink, silent

IMAGE_SUFFIXES = (".avif", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File names that are taken for images where a recipe names no globs of its own; the decoder decides what they are."""

MAX_ITEM_BYTES = 100 * 2**20
"""Largest file that is read from a package or a folder; what claims to be larger is refused unread."""

CACHE_VARIABLE = "FORGERY_DET_CACHE"


def default_cache() -> Path:
    """Return the folder of downloads: `$FORGERY_DET_CACHE`, or `~/.cache/forgery-det`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "forgery-det"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may use besides its parameters.

    Args:
        source_id: Name of the source in its recipe, for errors and progress.
        folder: Relative paths in the parameters start here: the recipe's folder.
        cache: Folder of downloads.
        progress: Told about downloads.
        out: The dataset folder that is being built, which no source may read from.
    """

    source_id: str
    folder: Path
    cache: Path
    progress: ProgressSink = silent
    out: Path | None = None

    def resolve(self, path: str) -> Path:
        """Return a path of the recipe: `~` expanded, relative ones from the recipe's folder.

        Raises:
            ConfigError: The dataset that is being built lies there, and would be read into itself.
        """
        resolved = self.folder / Path(path).expanduser()
        if self.out is not None and self.out.resolve().is_relative_to(resolved.resolve()):
            raise ConfigError(
                f"Expected `--out` outside of the folders that are read, got {self.out}, which lies in {resolved} "
                f"(source {self.source_id!r})."
            )
        return resolved


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item of a source.

    Args:
        key: Names the item within its source; the same in every run.
        stamp: Changes when what lies behind the key changes; constant for pinned sources.
        data: The file's bytes; None when the item was skipped or refused.
        fields: Item fields that the source itself knows, such as a caption.
        refusal: Reason and detail if the item cannot be read.
        position: Where to go on after this item, for sources that stream; JSON values.
    """

    key: str
    stamp: str = ""
    data: bytes | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    refusal: tuple[str, str] | None = None
    position: Any = None


Skip = Callable[[str, str], bool]
"""`(key, stamp) -> True` when the item need not be read."""


class Source(ABC):
    """A kind of source.

    A subclass defines `Parameters`, a frozen dataclass that is the schema of its keys in a recipe. Items come in the
    same order in every run. An item that `skip` names is yielded without data and without the cost of reading it.
    """

    Parameters: ClassVar[type]

    pinned: bool = False
    """True when equal parameters always mean equal items, so that a finished source is not opened again."""

    gives_fields: ClassVar[bool] = False
    """True when items bring item fields along, so that a recipe cannot be checked for missing ones beforehand."""

    @abstractmethod
    def __init__(self, parameters: Any, context: SourceContext) -> None: ...

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return the parameters that decide what the items are, as JSON values."""

    @abstractmethod
    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:
        """Yield the items, going on after `position` where one is given.

        Raises:
            SourceError: The source cannot be reached or does not hold what the recipe says.
        """


def read_all(source: Source, keys: set[str]) -> dict[str, bytes]:
    """Return the bytes of the named items that the source has."""
    items = source.items(lambda key, _stamp: key not in keys)
    return {item.key: item.data for item in items if item.data is not None}
