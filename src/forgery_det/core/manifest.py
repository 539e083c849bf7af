"""The manifest: one row an image, the contract between recipes, training, evaluation and audits.

A dataset is a folder with `manifest.parquet`; this module holds the schema (`docs/design.md` section 2), its validation
and its reading and writing. Each broken rule is its own error that names the column, the first bad row and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from forgery_det.core.artefacts import atomic_path, sha256_bytes
from forgery_det.core.errors import ManifestError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import CAMERA, DECODERS, PARADIGMS, PROMPT_LEVELS, SPLITS

MANIFEST_NAME = "manifest.parquet"


@dataclass(frozen=True, slots=True)
class Column:
    """Type and rule of one manifest column."""

    dtype: pl.DataType
    nullable: bool = False
    allowed: tuple[str, ...] | None = None
    low: int | None = None
    high: int | None = None


_TEXT, _INT, _DATE = pl.String(), pl.Int64(), pl.Date()

COLUMNS: dict[str, Column] = {
    "image_id": Column(_TEXT),
    "path": Column(_TEXT),
    "label": Column(_INT, low=0, high=1),
    "generator": Column(_TEXT),
    "paradigm": Column(_TEXT, allowed=PARADIGMS),
    "decoder": Column(_TEXT, allowed=DECODERS),
    "source": Column(_TEXT),
    "source_id": Column(_TEXT),
    "content_id": Column(_TEXT, nullable=True),
    "prompt_id": Column(_TEXT, nullable=True),
    "prompt": Column(_TEXT, nullable=True),
    "prompt_level": Column(_TEXT, nullable=True, allowed=PROMPT_LEVELS),
    "prompt_words": Column(_INT, nullable=True, low=0),
    "prompt_clip_tokens": Column(_INT, nullable=True, low=0),
    "release_date": Column(_DATE, nullable=True),
    "width_px": Column(_INT, low=1),
    "height_px": Column(_INT, low=1),
    "codec": Column(_TEXT),
    "jpeg_quality": Column(_INT, nullable=True, low=1, high=100),
    "phash": Column(_TEXT, nullable=True),
    "licence": Column(_TEXT),
    "split": Column(_TEXT, allowed=SPLITS),
    "recipe": Column(_TEXT),
}
"""Column name -> type and rule, in the order in which they are stored."""

SCHEMA: dict[str, pl.DataType] = {name: column.dtype for name, column in COLUMNS.items()}
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A validated table of images and the folder that holds them.

    Args:
        frame: One row an image, columns as in `COLUMNS`; must not be changed in place.
        root: The dataset folder; `path` values are relative to it.

    Example:
        >>> Manifest.from_rows([], Path("/tmp")).frame.height
        0
    """

    frame: pl.DataFrame
    root: Path

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], root: Path) -> Manifest:
        """Build and validate a manifest from row dictionaries; absent nullable columns become null.

        Raises:
            ManifestError: A row breaks the schema.
        """
        for index, row in enumerate(rows):
            _check_names(set(row), f"row {index}", optional={n for n, c in COLUMNS.items() if c.nullable})
        columns = {}
        for name, dtype in SCHEMA.items():
            values = [row.get(name) for row in rows]
            _check_python_types(name, dtype, values)
            columns[name] = pl.Series(name, values, dtype=dtype, strict=True)
        manifest = cls(pl.DataFrame(columns), Path(root))
        manifest.validate()
        return manifest

    @classmethod
    def load(cls, dataset: Path) -> Manifest:
        """Read and validate `manifest.parquet` of a dataset folder (the path of the file itself is accepted too).

        Raises:
            ManifestError: There is no manifest, it is not Parquet, or it breaks the schema.
        """
        path = Path(dataset)
        if path.is_dir():
            path = path / MANIFEST_NAME
        if not path.is_file():
            raise ManifestError(
                f"Expected a dataset folder with {MANIFEST_NAME}, got {dataset}. "
                "Build one with `forgery-det collect RECIPE --out DIR`."
            )
        try:
            frame = pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ManifestError(f"Expected a Parquet file, got something else in {path}: {error}") from error
        manifest = cls(frame, path.parent)
        manifest.validate(str(path))
        return manifest

    def write(self) -> Path:
        """Validate, then write `manifest.parquet` into `root` atomically; return its path."""
        self.validate()
        path = self.root / MANIFEST_NAME
        with atomic_path(path) as temporary:
            self.frame.select(list(SCHEMA)).write_parquet(temporary, compression="zstd", statistics=False)
        return path

    def validate(self, where: str = "manifest") -> None:
        """Check every rule of the schema.

        Raises:
            ManifestError: The first broken rule, with column, row and value.
        """
        _check_names(set(self.frame.columns), where, optional=set())
        for name, column in COLUMNS.items():
            _check_column(self.frame[name], name, column, where)
        _check_paths(self.frame["path"], where)
        _check_each(self.frame["image_id"], "image_id", where, "64 hexadecimal digits", _is_image_id)
        repeated = self.frame.filter(self.frame["image_id"].is_duplicated())
        if repeated.height:
            first = repeated["image_id"][0]
            raise ManifestError(
                f"Expected every `image_id` once, got {first} {_count(repeated, first)} times ({where})."
            )
        mismatch = self.frame.filter((pl.col("label") == 0) != (pl.col("paradigm") == CAMERA))
        if mismatch.height:
            row = mismatch.row(0, named=True)
            raise ManifestError(
                f"Expected label 0 exactly where paradigm is '{CAMERA}', got label {row['label']} with paradigm "
                f"{row['paradigm']!r} for image {row['image_id']} ({where})."
            )

    @property
    def name(self) -> str:
        """What people call the dataset: the recipe all its rows come from, else the name of its folder."""
        recipes = self.frame["recipe"].unique().to_list()
        return str(recipes[0]) if len(recipes) == 1 else self.root.resolve().name

    def image_file(self, path: str) -> Path:
        """Return where the image of a `path` value lies on disk: a file, or a range in a shard (see `stored`)."""
        return self.root / path

    def subset(self, *predicates: pl.Expr) -> Manifest:
        """Return the manifest of the rows for which all polars expressions hold."""
        return Manifest(self.frame.filter(*predicates), self.root)

    def digest(self) -> str:
        """Return a sha256 over the rows in order; equal for equal tables, whatever wrote the Parquet file."""
        rows: str = self.frame.select(list(SCHEMA)).write_ndjson()
        return sha256_bytes(rows.encode("utf-8"))

    def __len__(self) -> int:
        return self.frame.height


def _count(frame: pl.DataFrame, image_id: str) -> int:
    return frame.filter(pl.col("image_id") == image_id).height


def _is_image_id(value: str) -> bool:
    return _IMAGE_ID.fullmatch(value) is not None


def _check_names(found: set[str], where: str, optional: set[str]) -> None:
    for name in sorted(found - set(COLUMNS)):
        raise ManifestError(f"Unknown manifest column {name!r} ({where}): {did_you_mean(name, COLUMNS)}")
    missing = [name for name in COLUMNS if name not in found and name not in optional]
    if missing:
        raise ManifestError(
            f"Expected the manifest columns of docs/design.md section 2, got none called {missing} ({where})."
        )


def _check_python_types(name: str, dtype: pl.DataType, values: list[Any]) -> None:
    # polars itself would take True as 1 and a text as a date.
    python_type: type = {_TEXT: str, _INT: int, _DATE: date}[dtype]
    for index, value in enumerate(values):
        if value is not None and (not isinstance(value, python_type) or isinstance(value, bool)):
            got = f"{value!r} of type {type(value).__name__}"
            raise ManifestError(f"Expected `{name}` of type {dtype}, got {got} (row {index}).")


def _check_column(series: pl.Series, name: str, column: Column, where: str) -> None:
    if series.dtype != column.dtype:
        raise ManifestError(f"Expected `{name}` of type {column.dtype}, got {series.dtype} ({where}).")
    if not column.nullable and series.null_count():
        row = series.is_null().arg_max()
        raise ManifestError(f"Expected a value in `{name}`, got null (row {row}, {where}).")
    if column.allowed is not None:
        allowed = column.allowed
        for value in series.drop_nulls().unique(maintain_order=True):
            if value not in allowed:
                raise ManifestError(f"Unknown {name} {value!r} ({where}): {did_you_mean(value, allowed)}")
    low, high = column.low, column.high
    if low is not None or high is not None:
        rule = f"in [{low}, {high}]" if high is not None else f"at least {low}"
        bad = series.is_between(low if low is not None else -(2**62), high if high is not None else 2**62).not_()
        if bad.any():
            row = bad.fill_null(False).to_list().index(True)
            raise ManifestError(f"Expected `{name}` {rule}, got {series[row]} (row {row}, {where}).")


def _check_each(series: pl.Series, name: str, where: str, rule: str, holds: Callable[[str], bool]) -> None:
    for index, value in enumerate(series):
        if not holds(value):
            raise ManifestError(f"Expected `{name}` to be {rule}, got {value!r} (row {index}, {where}).")


def _check_paths(series: pl.Series, where: str) -> None:
    for index, value in enumerate(series):
        path = PurePosixPath(value.replace("\\", "/"))
        if path.is_absolute() or re.match(r"[A-Za-z]:", value):
            raise ManifestError(
                f"Expected `path` relative to the dataset folder, got absolute {value!r} (row {index}, {where})."
            )
        if ".." in path.parts or not path.parts:
            raise ManifestError(
                f"Expected `path` inside the dataset folder, got {value!r}, which leaves it (row {index}, {where})."
            )
