"""Images in a folder, found by globs; labels come from the recipe, whatever the folders are called."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from forgery_det.core.errors import SourceError
from forgery_det.recipes.sources.base import IMAGE_SUFFIXES, MAX_ITEM_BYTES, Skip, Source, SourceContext, SourceItem
from forgery_det.recipes.sources.outlook import Download, Expected, Outlook


@dataclass(frozen=True, slots=True)
class FolderParameters:
    """Keys of a `folder` source.

    Args:
        root: Folder, relative to the recipe's folder or absolute; `~` is expanded.
        globs: Patterns over paths relative to `root` (`*` also matches `/`); empty takes all image suffixes.
    """

    root: str
    globs: tuple[str, ...] = ()


class FolderSource(Source):
    """Every matching file below a folder, in the order of its relative path.

    The key is the relative path with `/`. Size and modification time are the stamp: a file that was replaced is read
    again. Links to folders are followed once, so a link that leads back up does no harm; links to files are read.
    """

    Parameters = FolderParameters

    def __init__(self, parameters: FolderParameters, context: SourceContext) -> None:
        self._globs = parameters.globs
        self._source_id = context.source_id
        self._root = context.resolve(parameters.root)

    def identity(self) -> Mapping[str, Any]:
        """Return the folder; which files match is found anew in every run."""
        return {"root": str(self._root)}

    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:  # noqa: ARG002 - a folder does not stream
        """Yield the files.

        Raises:
            SourceError: The folder is missing or no file matches.
        """
        if not self._root.is_dir():
            raise SourceError(f"Expected a folder at {self._root}, got none (source {self._source_id!r}: root).")
        keys = sorted(key for key in _files(self._root) if matches(key, self._globs))
        if not keys:
            wanted = ", ".join(self._globs or (f"*{suffix}" for suffix in IMAGE_SUFFIXES))
            raise SourceError(
                f"Expected files matching {wanted} in {self._root}, got none (source {self._source_id!r})."
            )
        for key in keys:
            yield self._item(key, skip)

    def outlook(self) -> Outlook:
        """Return the files that match now."""
        if not self._root.is_dir():
            return Outlook(downloads=(Download(f"{self._root} (to be put there)", None, False),), more=None)
        keys = sorted(key for key in _files(self._root) if matches(key, self._globs))
        return Outlook(tuple(Expected(key) for key in keys))

    def _item(self, key: str, skip: Skip) -> SourceItem:
        path = self._root / key
        if not _is_utf8(key):
            shown = os.fsencode(key).decode("utf-8", "backslashreplace")
            return SourceItem(shown, refusal=("unreadable", "Expected a file name in UTF-8, got other bytes."))
        try:
            facts = path.stat()
            stamp = f"{facts.st_size}-{facts.st_mtime_ns}"
            if skip(key, stamp):
                return SourceItem(key, stamp)
            if not stat.S_ISREG(facts.st_mode):
                # Reading a pipe or a device could wait for ever.
                return SourceItem(key, stamp, refusal=("unreadable", "Expected a regular file, got something else."))
            if facts.st_size > MAX_ITEM_BYTES:
                return SourceItem(key, stamp, refusal=too_large(facts.st_size))
            return SourceItem(key, stamp, path.read_bytes())
        except OSError as error:
            return SourceItem(key, refusal=("unreadable", f"Expected a readable file, got: {error.strerror or error}."))


def matches(key: str, globs: tuple[str, ...]) -> bool:
    """Return whether a key matches one of the globs, or, without globs, has an image suffix.

    Example:
        >>> matches("a/b.JPG", ()), matches("a/b.txt", ()), matches("a/b.txt", ("a/*.txt",))
        (True, False, True)
    """
    if not globs:
        return key.lower().endswith(IMAGE_SUFFIXES)
    return any(fnmatchcase(key, glob) for glob in globs)


def too_large(n_bytes: int) -> tuple[str, str]:
    """Return the refusal of a file that is too large to be read."""
    return "too_many_bytes", f"Expected at most {MAX_ITEM_BYTES} bytes, got {n_bytes}."


def _is_utf8(key: str) -> bool:
    # Python marks bytes of a file name that are not UTF-8 with lone surrogates, which no table can store.
    return not any("\ud800" <= letter <= "\udfff" for letter in key)


def _unlistable(error: OSError) -> None:
    raise SourceError(f"Expected a folder that can be listed, got: {error.strerror} ({error.filename}).") from error


def _files(root: Path) -> Iterator[str]:
    """Yield the relative paths of all files; a folder that was reached before (by device and inode) is not entered."""
    entered: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, onerror=_unlistable, followlinks=True):
        here = Path(folder)
        facts = here.stat()
        if (facts.st_dev, facts.st_ino) in entered:
            folders.clear()
            continue
        entered.add((facts.st_dev, facts.st_ino))
        folders.sort()
        yield from ((here / name).relative_to(root).as_posix() for name in files)
