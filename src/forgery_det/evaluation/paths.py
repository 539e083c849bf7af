"""From what a user names (files, folders, globs) to files, in order, with nothing dropped in silence.

- A name that exists is taken as it is, also when it holds `*` or `[`.
- A file is always tried, whatever its suffix: the decoder goes by the bytes.
- A folder gives its files with an image suffix, deeper folders included, in sorted order; hidden files and folders are
  not entered, links to folders are not followed. Every other file goes to `on_skipped`, so that it can be counted.
- A glob (`*`, `?`, `[...]`, `**`) gives its matches in sorted order, each treated as above.
- A name that gives nothing comes out as it is: predicting it makes a row with an error.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".tif", ".tiff"})
"""Suffixes that a folder search takes, in lower case."""


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
        if os.path.lexists(name):
            yield from _expand_existing(name, on_skipped)
        elif glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not matches:
                yield name
            for match in matches:
                yield from _expand_existing(match, on_skipped)
        else:
            yield name


def _expand_existing(name: str, on_skipped: Callable[[str], None]) -> Iterator[str]:
    if not Path(name).is_dir():
        yield name
        return
    empty = True
    for path in _walk(name):
        if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 - paths stay strings, as they were given
            empty = False
            yield path
        else:
            on_skipped(path)
    if empty:
        yield name


def _walk(folder: str) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        # os.walk goes into what is left of this list, in its order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(root, name) for name in sorted(files) if not name.startswith("."))  # noqa: PTH118
