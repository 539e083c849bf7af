"""From what a user names (files, folders, globs) to files, in order, with nothing dropped in silence.

- A name that exists is taken as it is, also when it holds `*` or `[`.
- A file is always tried, whatever its suffix: the decoder goes by the bytes.
- A folder gives its files with an image suffix in sorted order, then those of its folders; hidden files and folders are
  not entered, links to folders are not followed. Every other file goes to `on_skipped`, so that it can be counted.
- A glob (`*`, `?`, `[...]`, `**`) gives its matches in the same order, each treated as above.
- A name that gives nothing comes out as it is: predicting it makes a row with an error.

Files come one by one: what is held in memory is the names of one folder on each level, never the whole tree. The order
depends on the names alone, so a second run over the same tree gives the same list.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff"})
"""Suffixes that a folder search takes, in lower case."""

_ANY_DEPTH = "**"


def _ignore(path: str) -> None:
    """Take no note of a skipped file: for callers that do not count them."""


def expand_paths(arguments: Iterable[str | Path], on_skipped: Callable[[str], None] = _ignore) -> Iterator[str]:
    """Yield the files that the arguments name, lazily, in the order of the arguments.

    Args:
        arguments: Files, folders and globs; for instance the words of a command line, or the lines of stdin without
            their line ends.
        on_skipped: Told each file of a folder that was left out because its suffix is not an image's.

    Example:
        >>> list(expand_paths(["/nowhere/a.jpg"]))
        ['/nowhere/a.jpg']
    """
    for argument in arguments:
        name = os.fspath(argument)
        if os.path.lexists(name) or not glob.has_magic(name):
            yield from _expand_existing(name, on_skipped)
            continue
        found = False
        for match in expand_glob(name):
            found = True
            yield from _expand_existing(match, on_skipped)
        if not found:
            yield name


def expand_glob(pattern: str) -> Iterator[str]:
    """Yield what a glob matches, as `glob.glob(pattern, recursive=True)` does, but one by one and in a fixed order.

    In each folder its files come first, then what lies in its folders, both sorted. `**` does not follow links.
    """
    drive, rest = os.path.splitdrive(pattern)
    root = drive + rest[: len(rest) - len(rest.lstrip(os.sep))]
    parts = [part for part in rest.split(os.sep) if part]  # noqa: PTH206 - paths stay strings, as they were given
    # `a/**/**/b` means `a/**/b`, and would otherwise give matches twice.
    kept = [part for i, part in enumerate(parts) if not (part == _ANY_DEPTH and i and parts[i - 1] == _ANY_DEPTH)]
    yield from _matches(root, kept)


def _matches(folder: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == _ANY_DEPTH:
        yield from _at_any_depth(folder, rest)
    elif not glob.has_magic(part):
        path = os.path.join(folder, part)  # noqa: PTH118 - paths stay strings, as they were given
        if os.path.lexists(path):
            yield from _matches(path, rest)
    else:
        for name in _sorted_names(folder):
            if fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
                yield from _matches(os.path.join(folder, name), rest)  # noqa: PTH118 - see above


def _at_any_depth(folder: str, rest: list[str]) -> Iterator[str]:
    """Yield what `rest` matches in this folder and in every one below; with no `rest`, the files below."""
    if rest:
        yield from _matches(folder, rest)
    names = [name for name in _sorted_names(folder) if not name.startswith(".")]
    folders = []
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118 - see above
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114 - see above
            folders.append(path)
        elif not rest:
            yield path
    for path in folders:
        yield from _at_any_depth(path, rest)


def _sorted_names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or os.curdir))  # noqa: PTH208 - see above
    except OSError:
        # A pattern goes through files and closed folders as if they were empty, as glob does.
        return []


def _expand_existing(name: str, on_skipped: Callable[[str], None]) -> Iterator[str]:
    if not _is_folder(name):
        yield name
        return
    empty = True
    for path in _walk(name):
        if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 - see above
            empty = False
            yield path
        else:
            on_skipped(path)
    if empty:
        yield name


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except ValueError:
        return False  # a null byte: no file has such a name


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        # os.walk goes into what is left of this list, in its order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(root, name) for name in sorted(files) if not name.startswith("."))  # noqa: PTH118
