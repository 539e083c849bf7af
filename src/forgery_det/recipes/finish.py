"""Finish: the tables of a dataset, staged and moved into place, and the removal of what no row names."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from forgery_det.core.artefacts import remove_leftovers, sha256_file, write_json
from forgery_det.core.manifest import MANIFEST_NAME, Manifest
from forgery_det.core.stored import container, is_in_shard
from forgery_det.core.tables import write_table
from forgery_det.recipes.croissant import CROISSANT_NAME, croissant
from forgery_det.recipes.describe import DATASET_NAME, describe
from forgery_det.recipes.prompt_sets import PROMPTS_NAME, PromptSet
from forgery_det.recipes.prompting.table import prompts_frame
from forgery_det.recipes.recipe import Recipe
from forgery_det.recipes.rows import Candidate, Refused, origin
from forgery_det.recipes.shards import IMAGES_NAME, SHARDS_NAME
from forgery_det.recipes.work import WORK_NAME

QUARANTINE_NAME, ORIGINS_NAME = "quarantine.parquet", "origins.parquet"

_TEXT, _INT = pl.String(), pl.Int64()
QUARANTINE_SCHEMA = {"source": _TEXT, "key": _TEXT, "reason": _TEXT, "detail": _TEXT, "sha256": _TEXT}
ORIGINS_SCHEMA = {
    "image_id": _TEXT,
    "source": _TEXT,
    "key": _TEXT,
    "crop": _INT,
    "original_sha256": _TEXT,
    "width_px": _INT,
    "height_px": _INT,
    "n_bytes": _INT,
    "codec": _TEXT,
    "jpeg_quality": _INT,
    "stored_n_bytes": _INT,
    "notes": _TEXT,
}


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that a finished dataset holds besides its images.

    Args:
        placed: The rows and their splits, in the order of source, key and crop.
        refused: The quarantine, in the order of source, key and reason.
        prompts: The prompt sets that its images were made from.
    """

    placed: Sequence[tuple[Candidate, str]]
    refused: Sequence[Refused]
    prompts: Sequence[PromptSet] = ()


def write_tables(recipe: Recipe, contents: Contents, out: Path) -> tuple[Manifest, bool]:
    """Stage all tables, and move them into place unless they are there already; return whether anything changed."""
    staged = out / WORK_NAME / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    rows = [{**candidate.row, "split": split} for candidate, split in contents.placed]
    manifest = Manifest.from_rows(rows, staged)
    manifest_path = manifest.write()
    origins = [origin(candidate) for candidate, _ in contents.placed]
    write_table(pl.DataFrame(origins, schema=ORIGINS_SCHEMA), staged / ORIGINS_NAME)
    refused = [asdict(entry) for entry in contents.refused]
    write_table(pl.DataFrame(refused, schema=QUARANTINE_SCHEMA), staged / QUARANTINE_NAME)
    codecs = tuple(sorted(manifest.frame["codec"].unique()))
    sha256 = sha256_file(manifest_path)
    sharded = any(is_in_shard(path) for path in manifest.frame["path"])
    described = croissant(recipe, sha256, manifest_path.stat().st_size, codecs, sharded=sharded)
    write_json(staged / CROISSANT_NAME, described)
    write_json(staged / DATASET_NAME, describe(recipe, manifest, Counter(entry.reason for entry in contents.refused)))
    names = [MANIFEST_NAME, ORIGINS_NAME, QUARANTINE_NAME, CROISSANT_NAME, DATASET_NAME]
    if contents.prompts:
        write_table(prompts_frame(contents.prompts), staged / PROMPTS_NAME)
        names.insert(0, PROMPTS_NAME)
    changed = any(not _same(staged / name, out / name) for name in names)
    if changed:
        (out / DATASET_NAME).unlink(missing_ok=True)
        for name in names:
            (staged / name).replace(out / name)
    if not contents.prompts:
        (out / PROMPTS_NAME).unlink(missing_ok=True)
    shutil.rmtree(staged)
    return Manifest(manifest.frame, out), changed


def _same(a: Path, b: Path) -> bool:
    return b.is_file() and a.read_bytes() == b.read_bytes()


def remove_unnamed(manifest: Manifest, out: Path) -> None:
    """Remove images and shards that no row names, empty folders and what a killed write left."""
    remove_leftovers(out)
    named = {container(out / path) for path in manifest.frame["path"]}
    for root in (out / IMAGES_NAME, out / SHARDS_NAME):
        for path in [path for path in root.rglob("*") if path.is_file() and path not in named]:
            path.unlink()
        for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        if root.is_dir() and not any(root.iterdir()):
            root.rmdir()
