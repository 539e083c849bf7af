"""The contract of a source: parameters in, items with stable keys out, each read once."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.recipes.prompt_sets import PromptSet
from forgery_det.recipes.sources.outlook import Outlook

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
        peers: What the other parts of the recipe give to sources that build on them; None outside of a build.
    """

    source_id: str
    folder: Path
    cache: Path
    progress: ProgressSink = silent
    out: Path | None = None
    peers: Peers | None = None

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
class Original:
    """An original of another source, as a source that builds on it sees it.

    Args:
        item: The item, as its source yields it; without data where `skip` named it.
        fields: Its item fields, resolved: what its row in the manifest will say.
    """

    item: SourceItem
    fields: Mapping[str, Any]


class Peers(Protocol):
    """The other parts of a recipe."""

    def originals(self, source_id: str, skip: Skip) -> Iterator[Original]:
        """Yield the originals of a source that its table wants, in its order; `skip` as in `Source.items`.

        Raises:
            ConfigError: The recipe has no such source.
        """

    def identity(self, source_id: str) -> Mapping[str, Any]:
        """Return what decides the items of a source and their fields, as JSON values."""

    def prompt_set(self, name: str) -> PromptSet:
        """Return a prompt set, reading and expanding it if need be.

        Raises:
            ConfigError: The recipe has no such set.
        """


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item of a source.

    Args:
        key: Names the item within its source; the same in every run.
        stamp: Changes when what lies behind the key changes; constant for pinned sources.
        data: The file's bytes; None when the item was skipped or refused.
        fields: Item fields that the source itself knows, such as a caption.
        notes: Facts for the column `notes` of `origins.parquet`, as JSON values.
        refusal: Reason and detail if the item cannot be read.
        position: Where to go on after this item, for sources that stream; JSON values.
    """

    key: str
    stamp: str = ""
    data: bytes | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    refusal: tuple[str, str] | None = None
    position: Any = None
    notes: Mapping[str, Any] = field(default_factory=dict)


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

    def outlook(self) -> Outlook:
        """Return what is known of the items without fetching or writing anything; only their number may be known."""
        return Outlook(more=None)


def read_all(source: Source, keys: set[str]) -> dict[str, bytes]:
    """Return the bytes of the named items that the source has."""
    items = source.items(lambda key, _stamp: key not in keys)
    return {item.key: item.data for item in items if item.data is not None}
