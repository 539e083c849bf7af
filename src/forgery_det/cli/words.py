"""What people type, in the words that jsonargparse takes: bare flags, plain lists, dashes.

`--dry-run` means `--dry_run`, `--quick` means `--quick true`, and `--only a,b` means `--only '["a", "b"]'`, for options
whose type says so. What is written out already (`--quick false`, `--only '[a, b]'`) stays as it is.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def completed(function: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """Return the words with dashes in option names, bare flags and plain lists written out.

    Args:
        function: Its annotations tell which options are flags and which are lists.
        words: A command line without the command's name.

    Example:
        >>> def clean(quick: bool = False, only: list[str] | None = None) -> int: ...
        >>> completed(clean, ["--quick", "--only", "dust,rust"])
        ['--quick', 'true', '--only', '["dust", "rust"]']
        >>> completed(clean, ["--quick", "false", "--only=[dust]"])
        ['--quick', 'false', '--only=[dust]']
    """
    kinds = {f"--{name}": kind for name, kind in typing.get_type_hints(function).items()}
    return list(_written_out(kinds, [_option(kinds, word) for word in words]))


def _option(kinds: dict[str, Any], word: str) -> str:
    name, equals, value = word.partition("=")
    spelt = "--" + name[2:].replace("-", "_")
    return spelt + equals + value if name.startswith("--") and spelt in kinds else word


def _written_out(kinds: dict[str, Any], words: list[str]) -> Iterator[str]:
    for place, word in enumerate(words):
        before = kinds.get(words[place - 1]) if place else None
        yield _as_list(word) if before is not None and _is_list(before) else word
        following = words[place + 1] if place + 1 < len(words) else ""
        if kinds.get(word) is bool and following.lower() not in ("true", "false"):
            yield "true"


def _is_list(kind: Any) -> bool:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_is_list(part) for part in typing.get_args(kind))
    return typing.get_origin(kind) is list


def _as_list(word: str) -> str:
    if word.startswith("[") or word == "null":
        return word
    return json.dumps([part.strip() for part in word.split(",")])
