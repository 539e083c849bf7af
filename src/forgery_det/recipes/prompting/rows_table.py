"""Columns: which column of a table holds a prompt, its longer versions, and what pairs it with an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import PROMPT_LEVELS
from forgery_det.recipes.prompting.base import PromptRow

PROMPT, CONTENT_ID, SOURCE_ID = "prompt", "content_id", "source_id"
COLUMN_KEYS = (PROMPT, *PROMPT_LEVELS[1:], CONTENT_ID, SOURCE_ID)
"""What `columns` may name: `prompt` is the level v0; `v1` and `v2` are longer versions that the table gives."""


def check_columns(columns: Mapping[str, str]) -> None:
    """Check the keys of `columns`.

    Raises:
        ConfigError: A key is unknown, or `prompt` is missing.

    Example:
        >>> check_columns({"prompt": "caption", "content": "image"})
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Unknown key 'content' in `columns`: did you mean 'content_id'? Known: ...
    """
    for name in columns:
        if name not in COLUMN_KEYS:
            raise ConfigError(f"Unknown key {name!r} in `columns`: {did_you_mean(name, COLUMN_KEYS)}")
    if PROMPT not in columns:
        raise ConfigError(f"Expected `columns` to name the column of the prompt, got {dict(columns)}")


def check_known(columns: Mapping[str, str], known: Sequence[str], where: str) -> None:
    """Check that a table has the columns.

    Raises:
        SourceError: It lacks one.
    """
    for column in columns.values():
        if column not in known:
            raise SourceError(f"Unknown column {column!r} ({where}: columns): {did_you_mean(column, known)}")


def rows_of(row: Mapping[str, Any], columns: Mapping[str, str], place: str, per_row: int = 1) -> Iterator[PromptRow]:
    """Yield the ideas that one row of a table holds; a list of captions gives its first `per_row`.

    Example:
        >>> row = {"caption": ["a fox", "a red fox", "snow"], "image": 7}
        >>> [idea.texts["v0"] for idea in rows_of(row, {"prompt": "caption", "content_id": "image"}, "t.csv line 2", 2)]
        ['a fox', 'a red fox']
    """
    levels = {PROMPT: PROMPT_LEVELS[0]} | {level: level for level in PROMPT_LEVELS[1:]}
    texts = {level: _texts(row[columns[name]]) for name, level in levels.items() if name in columns}
    found = max([len(options) for options in texts.values()], default=0)
    for index in range(max(1, min(per_row, found))):
        yield PromptRow(
            place=place if per_row == 1 else f"{place}, caption {index + 1}",
            texts={
                level: options[index] for level, options in texts.items() if index < len(options) and options[index]
            },
            content_id=_id(row, columns.get(CONTENT_ID)),
            source_id=_id(row, columns.get(SOURCE_ID)),
        )


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [" ".join(str(one).split()) for one in values if one is not None]


def _id(row: Mapping[str, Any], column: str | None) -> str | None:
    value = None if column is None else row[column]
    return None if value is None or str(value).strip() == "" else str(value).strip()
