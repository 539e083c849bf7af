"""The user's benchmark files as prompts: CSV, JSON lines or Parquet, columns mapped in the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import PROMPT_LEVELS
from forgery_det.safety.plan import PromptsSpec
from forgery_det.safety.types import SafetyPrompt

_FIELDS = tuple(field.name for field in fields(SafetyPrompt))
_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".parquet": pl.read_parquet,
}


def read_prompts(specs: Sequence[PromptsSpec], folder: Path) -> tuple[SafetyPrompt, ...]:
    """Return the prompts of all files, in order.

    A file needs a column for `text`; `prompt_id` is the hash of benchmark and text where no column gives it, so that
    the same idea at several levels needs one.

    Args:
        specs: The plan's `prompts`.
        folder: Relative paths start here.

    Raises:
        ConfigError: A file or a column is missing, a value does not fit, or one prompt is there twice.
    """
    found = [prompt for spec in specs for prompt in _read(spec, folder)]
    seen: set[tuple[str, str]] = set()
    for prompt in found:
        key = (prompt.prompt_id, prompt.prompt_level)
        if key in seen:
            raise ConfigError(
                f"Expected each prompt once at each level, got {prompt.prompt_id!r} at {prompt.prompt_level} again."
            )
        seen.add(key)
    if not found:
        raise ConfigError("Expected prompts, got none (the plan's `prompts`).")
    return tuple(found)


def read_table(path: Path) -> pl.DataFrame:
    """Return the table in a CSV, JSON lines or Parquet file.

    Raises:
        ConfigError: The file is of another kind, or cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"Expected a file of {', '.join(_READERS)}, got {path}.")
    try:
        return reader(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"Expected a readable table of prompts, got: {error} ({path}).") from error


def check_columns(wanted: Iterable[str], there: Sequence[str], path: Path) -> None:
    """Check that columns are in a table.

    Raises:
        ConfigError: One is not; the text offers the nearest.
    """
    for column in wanted:
        if column not in there:
            raise ConfigError(f"Unknown column {column!r} ({path}): {did_you_mean(column, there)}")


def _read(spec: PromptsSpec, folder: Path) -> list[SafetyPrompt]:
    _check_fields(spec)
    if spec.benchmark_set is not None:
        from forgery_det.safety.benchmarks import benchmark_rows  # which reads tables with this module

        where = Path(spec.benchmark_set)
        found = enumerate(benchmark_rows(spec, folder), start=1)
        return [_prompt(row, {name: name for name in row}, spec, where, number) for number, row in found]
    path = folder / Path(spec.path or "").expanduser()
    table = read_table(path)
    columns = _columns(spec, table, path)
    rows = table.head(spec.limit) if spec.limit is not None else table
    return [_prompt(row, columns, spec, path, number) for number, row in enumerate(rows.iter_rows(named=True), start=1)]


def _check_fields(spec: PromptsSpec) -> None:
    for name in spec.columns:
        if name not in _FIELDS:
            where = spec.path or spec.benchmark_set
            raise ConfigError(f"Unknown field {name!r} in `columns` ({where}): {did_you_mean(name, _FIELDS)}")


def _columns(spec: PromptsSpec, table: pl.DataFrame, path: Path) -> dict[str, str]:
    check_columns(spec.columns.values(), table.columns, path)
    columns = {name: name for name in _FIELDS if name in table.columns} | dict(spec.columns)
    if "text" not in columns:
        raise ConfigError(
            f"Expected a column for `text`, got {', '.join(table.columns)} ({path}): map it, for instance "
            "`columns: {text: prompt}`."
        )
    return columns


def _prompt(row: dict[str, Any], columns: dict[str, str], spec: PromptsSpec, path: Path, number: int) -> SafetyPrompt:
    values = {name: row[column] for name, column in columns.items() if row[column] is not None}
    text = str(values.get("text", "")).strip()
    if not text:
        raise ConfigError(f"Expected a text, got nothing ({path}, row {number}).")
    level = str(values.get("prompt_level", "v0"))
    if level not in PROMPT_LEVELS:
        raise ConfigError(
            f"Expected `prompt_level` in {', '.join(PROMPT_LEVELS)}, got {level!r} ({path}, row {number})."
        )
    benchmark = str(values.get("benchmark", spec.benchmark))
    image = None
    if isinstance(values.get("image"), bytes):
        image = values["image"]
    elif "image" in values:
        image_path = path.parent / str(values["image"])
        if not image_path.is_file():
            raise ConfigError(f"Expected the picture of the prompt, got no file {image_path} ({path}, row {number}).")
        image = image_path.read_bytes()
    prompt_id = str(values.get("prompt_id") or sha256_bytes(canonical_json([benchmark, text]).encode("utf-8"))[:16])
    texts = {name: str(values.get(name, "")) for name in ("category", "language")}
    return SafetyPrompt(prompt_id, text, benchmark, texts["category"], texts["language"], level, image)
