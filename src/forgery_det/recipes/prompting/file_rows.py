"""Prompts in a file: CSV, JSON lines or Parquet. The file's sha256 is part of the recipe's digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.prompt_sets import PromptContext
from forgery_det.recipes.prompting.base import PromptKind, PromptRow
from forgery_det.recipes.prompting.rows_table import check_columns, check_known, rows_of

SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class PromptFileParameters:
    """Keys of `from` with the kind `prompt_file`.

    Args:
        path: The file, relative to the recipe or absolute; its suffix says the format.
        columns: `prompt`, and optionally `v1`, `v2`, `content_id`, `source_id` -> column.
        per_row: Most prompts of a row whose column holds a list of captions.
    """

    path: str
    columns: Mapping[str, str] = field(default_factory=lambda: {"prompt": "prompt"})
    per_row: int = 1

    def __post_init__(self) -> None:
        check_columns(self.columns)
        if Path(self.path).suffix not in SUFFIXES:
            hint = did_you_mean(Path(self.path).suffix, SUFFIXES)
            raise ConfigError(f"Expected a file of a known format, got {self.path!r}: {hint}")
        if self.per_row < 1:
            raise ConfigError(f"Expected `per_row` of at least 1, got {self.per_row}")


class PromptFile(PromptKind):
    """Every row of the file, in its order."""

    Parameters = PromptFileParameters

    def __init__(self, parameters: PromptFileParameters, folder: Path, context: PromptContext) -> None:
        del context
        self._parameters = parameters
        (self._path,) = self.files(parameters, folder)

    @staticmethod
    def files(parameters: PromptFileParameters, folder: Path) -> tuple[Path, ...]:
        """Return the file.

        Raises:
            ConfigError: It is not there.
        """
        path = folder / Path(parameters.path).expanduser()
        if not path.is_file():
            raise ConfigError(f"Expected a file of prompts, got no file {path} (prompt_sets: from.path).")
        return (path,)

    def rows(self) -> Iterator[PromptRow]:
        """Yield the rows.

        Raises:
            SourceError: The file cannot be read, or lacks a column.
        """
        frame = _read(self._path)
        columns = self._parameters.columns
        check_known(columns, frame.columns, self._path.name)
        used = frame.select(sorted(set(columns.values())))
        for index, row in enumerate(used.iter_rows(named=True)):
            yield from rows_of(row, columns, f"{self._path.name} row {index + 1}", self._parameters.per_row)


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".csv":
            # As text: an id such as 000123 must keep its zeros.
            return pl.read_csv(path, infer_schema=False)
        if path.suffix == ".jsonl":
            return pl.read_ndjson(path, infer_schema_length=None)
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"Expected a readable table of prompts, got: {error} ({path}).") from error
