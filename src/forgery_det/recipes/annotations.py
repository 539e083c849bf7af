"""Annotation tables: what people wrote down about each image of a source, by looking at it.

A CSV file with one row an image and the key of the image in the column `member`. Where the table has a column
`package`, a source reads only the rows of its own package, so that one table can serve several sources. `use` is `keep`
or `drop` (with a `reason`); columns that the manifest knows are checked here and become fields of the row; `width_px`,
`height_px` and `codec` are compared with the file; `boxes` are the rectangles that are used of it (see `boxes`), empty
for the whole image; every other column is kept as a note in `origins.parquet`.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import DECODERS, PARADIGMS, PROMPT_LEVELS, SPLITS
from forgery_det.recipes.boxes import Box, parse_boxes

TEXT_FIELDS = ("source", "generator", "source_id", "content_id", "prompt", "prompt_id", "licence")
CHOICE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "paradigm": PARADIGMS,
    "decoder": DECODERS,
    "prompt_level": PROMPT_LEVELS,
    "split": SPLITS,
}
ITEM_FIELDS = (*TEXT_FIELDS, *CHOICE_FIELDS, "label", "release_date", "prompt_clip_tokens")
"""What a recipe, a table or a source may say about one image."""

FACT_COLUMNS = ("width_px", "height_px", "codec")
"""What a table may say about the original file; it is compared, never copied."""

_LABELS: Mapping[Any, int] = {0: 0, 1: 1, "0": 0, "1": 1, "real": 0, "generated": 1}
_USES = ("keep", "drop")
_TABLE_COLUMNS = ("member", "package", "use", "reason", "prompt_ref", "boxes")


def item_field(name: str, value: Any, where: str) -> Any:
    """Return the value of an item field in its manifest type.

    Args:
        name: One of `ITEM_FIELDS`.
        value: Text from a table, or a typed value from YAML or a source.
        where: Place of the value, for errors.

    Raises:
        ConfigError: The field is unknown or the value does not fit it.

    Example:
        >>> item_field("release_date", "2025-03-25", "t.csv line 2")
        datetime.date(2025, 3, 25)
        >>> item_field("label", "generated", "t.csv line 2")
        1
    """
    if name not in ITEM_FIELDS:
        raise ConfigError(f"Unknown field {name!r} ({where}): {did_you_mean(name, ITEM_FIELDS)}")
    if name == "label":
        if isinstance(value, bool | float) or value not in _LABELS:
            raise ConfigError(f"Expected `label` real (0) or generated (1), got {value!r} ({where}).")
        return _LABELS[value]
    if name == "release_date":
        return _date(value, where)
    if name == "prompt_clip_tokens":
        if not str(value).isdecimal():
            raise ConfigError(f"Expected `prompt_clip_tokens` as a whole number, got {value!r} ({where}).")
        return int(value)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"Expected `{name}` as a text, got {value!r} ({where}).")
    allowed = CHOICE_FIELDS.get(name)
    if allowed is not None and value not in allowed:
        raise ConfigError(f"Unknown {name} {value!r} ({where}): {did_you_mean(value, allowed)}")
    return value


def _date(value: Any, where: str) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigError(f"Expected `release_date` as YYYY-MM-DD, got {value!r} ({where}).") from error


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of an annotation table.

    Args:
        member: Key of the image within its source.
        drop_reason: Why the image must not be used; None keeps it.
        fields: Item fields in their manifest types; empty cells are absent.
        facts: What the original file must be (`FACT_COLUMNS`).
        prompt_ref: Where the prompt lies, `<member>#<node id>` of the recipe's prompt source.
        boxes: Rectangles that are used; empty for the whole image.
        notes: All other columns that are not empty.
        where: Table and line, for errors that show only when the image is there.
    """

    member: str
    drop_reason: str | None
    fields: Mapping[str, Any]
    facts: Mapping[str, Any]
    prompt_ref: str | None
    boxes: tuple[Box, ...]
    notes: Mapping[str, str]
    where: str


def read_annotations(path: Path, package: str | None = None) -> dict[str, Annotation]:
    """Return the annotations of one source, by key.

    Args:
        path: CSV file, UTF-8, first line column names.
        package: Keeps only the rows of this package where the table has a column `package`.

    Raises:
        ConfigError: The table cannot be read, lacks the column `member`, names a member twice, has a row for which
            nothing fits, or no row for `package`.
    """
    columns, rows = _read_rows(path)
    selected: dict[str, Annotation] = {}
    for line, row in rows:
        if "package" in columns and row["package"] != package:
            continue
        annotation = _annotation(row, f"{path.name} line {line}")
        if annotation.member in selected:
            raise ConfigError(f"Expected each member once, got {annotation.member!r} again ({path.name} line {line}).")
        selected[annotation.member] = annotation
    if not selected:
        named = sorted({row["package"] for _, row in rows if "package" in columns})
        hint = f" of package {package!r}; the table names {', '.join(named) or 'none'}" if named else ""
        raise ConfigError(f"Expected rows{hint}, got none ({path}).")
    return selected


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"Expected a readable CSV table in UTF-8, got: {error} ({path}).") from error
    if "member" not in columns:
        raise ConfigError(f"Expected the column 'member', got {columns} ({path}).")
    known = (*ITEM_FIELDS, *FACT_COLUMNS, *_TABLE_COLUMNS)
    for column in columns:
        near = difflib.get_close_matches(column, known, n=1, cutoff=0.85)
        if column not in known and near:
            # Free columns are allowed; one letter off a known column is a slip that would lose the column in silence.
            raise ConfigError(f"Unknown column {column!r}, too near to {near[0]!r} to be a note ({path}).")
    for line, row in rows:
        if None in row or None in row.values():
            raise ConfigError(f"Expected {len(columns)} cells, got another number ({path.name} line {line}).")
    return columns, rows


def _annotation(row: Mapping[str, str], where: str) -> Annotation:
    cells = {name: text.strip() for name, text in row.items() if text and text.strip()}
    if "member" not in cells:
        raise ConfigError(f"Expected a value in 'member', got none ({where}).")
    use = cells.get("use", "keep")
    if use not in _USES:
        raise ConfigError(f"Unknown use {use!r} ({where}): {did_you_mean(use, _USES)}")
    facts: dict[str, Any] = {}
    for name in FACT_COLUMNS:
        if name in cells:
            if name != "codec" and not cells[name].isdecimal():
                raise ConfigError(f"Expected `{name}` as a whole number, got {cells[name]!r} ({where}).")
            facts[name] = cells[name].lower() if name == "codec" else int(cells[name])
    return Annotation(
        member=cells["member"],
        drop_reason=cells.get("reason", "no reason given") if use == "drop" else None,
        fields={name: item_field(name, cells[name], where) for name in ITEM_FIELDS if name in cells},
        facts=facts,
        prompt_ref=cells.get("prompt_ref"),
        boxes=parse_boxes(cells["boxes"], where) if "boxes" in cells else (),
        notes={
            name: text
            for name, text in cells.items()
            if name not in ITEM_FIELDS
            and name not in FACT_COLUMNS
            and name not in ("member", "package", "use", "prompt_ref", "boxes")
        },
        where=where,
    )
