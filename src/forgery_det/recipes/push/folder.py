"""The folder that is pushed: Parquet files, card, Croissant, and the tables that tell where the images came from."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.artefacts import (
    canonical_json,
    remove_leftovers,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.core.tables import write_table
from forgery_det.recipes.croissant import CROISSANT_NAME
from forgery_det.recipes.describe import DATASET_NAME
from forgery_det.recipes.finish import ORIGINS_NAME, QUARANTINE_NAME
from forgery_det.recipes.prompt_sets import PROMPTS_NAME
from forgery_det.recipes.push.card import card
from forgery_det.recipes.push.croissant import parquet_croissant
from forgery_det.recipes.push.tables import features, plan_files, write_files
from forgery_det.recipes.work import WORK_NAME, exclusive

CARD_NAME = "README.md"
MASKS_NAME = "masks"
_TABLES = (DATASET_NAME, ORIGINS_NAME, QUARANTINE_NAME, PROMPTS_NAME)
_KEY_NAME = ".forgery-det-push.json"
"""Says which dataset the folder was made from; it is not uploaded."""

FILE_MB = 300.0
MAX_FILE_MB = 1900.0
"""A column of bytes in Arrow ends at 2 GiB."""


@dataclass(frozen=True, slots=True)
class PushFolder:
    """A folder that is ready to be pushed.

    Args:
        path: The folder.
        repo: `owner/name` on the hub.
        files: Paths relative to it, the data first, the card last.
        n_images: Rows in all.
        n_bytes: Size of all files.
        licences: Licence -> number of images.
    """

    path: Path
    repo: str
    files: tuple[str, ...]
    n_images: int
    n_bytes: int
    licences: dict[str, int]


def prepare(
    dataset: Path, repo: str, *, out: Path | None = None, file_mb: float = FILE_MB, progress: ProgressSink = silent
) -> PushFolder:
    """Write the folder that is pushed, or go on with one that was interrupted.

    Args:
        dataset: A finished dataset folder.
        repo: `owner/name` on the hub.
        out: The folder to write; None takes a place inside the dataset's work folder.
        file_mb: Largest size of a Parquet file in MB of images.
        progress: Told after every file.

    Raises:
        ConfigError: The dataset is not finished or an image is missing or damaged; `repo` is no name; `out` holds
            something else.
    """
    dataset = Path(dataset)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ConfigError(f"Expected `repo` as owner/name, got {repo!r}.")
    if not 0 < file_mb <= MAX_FILE_MB:
        raise ConfigError(f"Expected the size of a file in (0, {MAX_FILE_MB:g}] MB, got {file_mb:g} (push: --file_mb).")
    if not (dataset / DATASET_NAME).is_file():
        raise ConfigError(f"Expected a finished dataset with {DATASET_NAME}, got {dataset}: run `collect` to its end.")
    described = json.loads((dataset / DATASET_NAME).read_text(encoding="utf-8"))
    with exclusive(dataset):
        manifest = Manifest.load(dataset)
        files = plan_files(manifest, max(1, round(file_mb * 1_000_000)))
        folder = dataset / WORK_NAME / "push" if out is None else Path(out)
        plan = [manifest.digest(), features(), [[file.path, file.rows] for file in files]]
        _start(folder, {"dataset": described["name"], "plan": sha256_bytes(canonical_json(plan).encode())})
        write_files(manifest, files, folder, progress)
        data = {file.path: folder / file.path for file in files}
        sums = {name: (path.stat().st_size, sha256_file(path)) for name, path in data.items()}
        tables = [name for name in _TABLES if (dataset / name).is_file()]
        for name in tables:
            write_bytes(folder / name, (dataset / name).read_bytes())
        tables += _write_masks(dataset, folder)
        write_json(folder / CROISSANT_NAME, parquet_croissant(described, sums))
        write_text(folder / CARD_NAME, card(described, files, repo))
    names = (*data, *tables, CROISSANT_NAME, CARD_NAME)
    n_bytes = sum((folder / name).stat().st_size for name in names)
    return PushFolder(folder, repo, names, len(manifest), n_bytes, described["licences"])


def _write_masks(dataset: Path, folder: Path) -> list[str]:
    """Write the masks of partial forgeries as one table: `mask`, as the notes of an image name it, and its bytes."""
    paths = sorted((dataset / MASKS_NAME).rglob("*.png"))
    if not paths:
        return []
    names = [path.relative_to(dataset).as_posix() for path in paths]
    masks = {"mask": names, "bytes": [path.read_bytes() for path in paths]}
    write_table(
        pl.DataFrame(masks, schema={"mask": pl.String(), "bytes": pl.Binary()}), folder / f"{MASKS_NAME}.parquet"
    )
    return [f"{MASKS_NAME}.parquet"]


def _start(folder: Path, key: dict[str, Any]) -> None:
    """Make the folder, keep what belongs to this very plan, and remove the Parquet files of another one."""
    marker = folder / _KEY_NAME
    if folder.exists() and not marker.is_file() and any(folder.iterdir()):
        raise ConfigError(f"Expected a new or empty folder, got {folder} with other files: choose another `--out`.")
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) != key:
        shutil.rmtree(folder / "data", ignore_errors=True)
    write_json(marker, key)
    remove_leftovers(folder)
