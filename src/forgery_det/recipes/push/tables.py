"""The Parquet files: one row an image, its bytes in a column, so that one file is data that loads by itself.

    data/train-00000-of-00003.parquet     image {bytes, path} | label | the other columns of the manifest but `path`

The features are stated under the key `huggingface` of each file's metadata, as the library `datasets` writes them, so
that `image` is an image and `label` a class wherever the file is loaded. Row groups are small, because whoever looks at
one picture must fetch its whole group.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.artefacts import atomic_path, sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import COLUMNS, Manifest
from forgery_det.core.progress import Progress, ProgressSink
from forgery_det.core.stored import read_stored, stored_size
from forgery_det.core.types import SPLITS
from forgery_det.recipes.process import image_suffix

ROWS_A_GROUP = 100
"""What the hub's viewer recommends for images."""

LABEL_NAMES = ("real", "generated")
_TYPES = {"String": "string", "Int64": "int64", "Date": "date32"}
_IMAGE = pl.Struct({"bytes": pl.Binary(), "path": pl.String()})


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file to be.

    Args:
        path: Relative to the folder that is pushed.
        split: Its split.
        rows: Numbers of its rows in the manifest.
    """

    path: str
    split: str
    rows: tuple[int, ...]


def plan_files(manifest: Manifest, file_bytes: int) -> tuple[DataFile, ...]:
    """Return the files of a dataset: rows in the manifest's order, cut where a file would grow beyond `file_bytes`.

    Raises:
        ConfigError: An image is missing.
    """
    by_split: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    filled = dict.fromkeys(SPLITS, 0)
    for number, (path, split) in enumerate(manifest.frame.select("path", "split").iter_rows()):
        size = stored_size(manifest.image_file(path))
        if size is None:
            raise ConfigError(f"Expected the image {path} of {manifest.root}, got none: run `collect` again.")
        if not by_split[split] or filled[split] + size > file_bytes:
            by_split[split].append([])
            filled[split] = 0
        by_split[split][-1].append(number)
        filled[split] += size
    return tuple(
        DataFile(f"data/{split}-{index:05d}-of-{len(parts):05d}.parquet", split, tuple(rows))
        for split, parts in by_split.items()
        for index, rows in enumerate(parts)
    )


def write_files(manifest: Manifest, files: Sequence[DataFile], folder: Path, progress: ProgressSink) -> None:
    """Write the files that are not there yet; a file that is there is whole.

    Raises:
        ConfigError: The bytes of an image are not those that its `image_id` states, or `pyarrow` is missing.
    """
    done = 0
    for file in files:
        if not (folder / file.path).is_file():
            _write(manifest, file, folder / file.path)
        done += len(file.rows)
        progress(Progress("write Parquet", done, len(manifest)))


def features() -> dict[str, Any]:
    """Return the features of a row, as `datasets` writes them."""
    columns: dict[str, Any] = {"image": {"_type": "Image"}}
    for name, column in COLUMNS.items():
        if name == "label":
            columns[name] = {"names": list(LABEL_NAMES), "_type": "ClassLabel"}
        elif name not in ("path", "split"):
            columns[name] = {"dtype": _TYPES[str(column.dtype)], "_type": "Value"}
    return columns


def _write(manifest: Manifest, file: DataFile, path: Path) -> None:
    part = manifest.frame[list(file.rows)]
    images = [_image(manifest, row) for row in part.select("image_id", "path", "codec").iter_rows(named=True)]
    table = part.select(name for name in features() if name != "image")
    table.insert_column(0, pl.Series("image", images, dtype=_IMAGE))
    pyarrow, parquet = _arrow()
    with atomic_path(path) as temporary:
        arrow = table.to_arrow().cast(_schema(pyarrow))
        parquet.write_table(arrow, temporary, compression="zstd", row_group_size=ROWS_A_GROUP, write_statistics=False)


def _arrow() -> tuple[Any, Any]:
    # Only here: readers take the features from the Arrow schema in a file, and polars alone cannot put them there.
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError("Expected the package `pyarrow`, got none: install `forgery-det[hub]`.") from error


def _schema(pyarrow: Any) -> Any:
    types = {"String": pyarrow.string(), "Int64": pyarrow.int64(), "Date": pyarrow.date32()}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = [(name, image if name == "image" else types[str(COLUMNS[name].dtype)]) for name in features()]
    return pyarrow.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features()}})})


def _image(manifest: Manifest, row: Mapping[str, str]) -> dict[str, Any]:
    data = read_stored(manifest.image_file(row["path"]))
    if sha256_bytes(data) != row["image_id"]:
        raise ConfigError(
            f"Expected the bytes of image {row['image_id']} in {row['path']}, got others: `forgery-det audit "
            f"{manifest.root}` lists what is damaged."
        )
    return {"bytes": data, "path": f"{row['image_id']}.{image_suffix(row['codec'])}"}
