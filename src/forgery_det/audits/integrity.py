"""Is the dataset what its manifest says: both classes in each split, each file there, with its bytes and facts?"""

from __future__ import annotations

import polars as pl

from forgery_det.audits.context import AuditContext
from forgery_det.audits.leaks import SHOWN_ROWS, counted
from forgery_det.audits.report import AuditFinding
from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import read_facts
from forgery_det.core.stored import read_stored, stored_size
from forgery_det.core.types import SPLITS

_CLASSES = {0: "real", 1: "generated"}
_USE = {
    "train": "nothing can be trained on it",
    "val": "thresholds and temperatures cannot be fitted",
    "test": "nothing can be tested on it",
}


def class_presence(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return for each split whether both classes are in it; a split that is absent altogether is a warning."""
    frame = context.manifest.frame
    return tuple(_split_classes(frame.filter(pl.col("split") == split), split) for split in SPLITS)


def _split_classes(images: pl.DataFrame, split: str) -> AuditFinding:
    where = f"split={split}"
    if not images.height:
        detail = f"The dataset has no '{split}' split: {_USE[split]}."
        return counted("class_presence", where, "warn", 2, 0, detail)
    sizes = {name: int((images["label"] == label).sum()) for label, name in _CLASSES.items()}
    absent = [name for name, size in sizes.items() if not size]
    if absent:
        detail = f"Split '{split}' has no {absent[0]} image: {_USE[split]}. Change the split rules of the recipe."
    else:
        detail = f"Split '{split}' has {sizes['real']} real and {sizes['generated']} generated images."
    return counted("class_presence", where, "fail", len(absent), images.height, detail)


def missing_files(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return the files that are missing, of all, and those with other bytes or facts, of a sample that is read."""
    frame = context.sample(None)
    sizes = [stored_size(context.manifest.image_file(path)) for path in frame["path"]]
    there = pl.Series([size is not None for size in sizes], dtype=pl.Boolean)
    missing = frame.filter(~there).select("image_id", "path")
    detail = (
        f"{missing.height} of {frame.height} files are missing. The same `forgery-det collect` restores them."
        if missing.height
        else f"All {frame.height} files are there."
    )
    shown = missing.head(SHOWN_ROWS).to_dicts()
    absent = counted("missing_files", "problem=missing", "fail", missing.height, frame.height, detail, shown)
    return (absent, _changed_files(context))


def _changed_files(context: AuditContext) -> AuditFinding:
    frame = context.sample(context.options.check_files)
    problems = []
    read = 0
    for row in frame.iter_rows(named=True):
        path = context.manifest.image_file(row["path"])
        if stored_size(path) is not None:
            read += 1
            problem = file_problem(read_stored(path), row)
            if problem:
                problems.append({"image_id": row["image_id"], "path": row["path"], "problem": problem})
    if problems:
        detail = (
            f"{len(problems)} of {read} files that were read are not what the manifest lists. Build the dataset again."
        )
    else:
        detail = f"The bytes and facts of {read} files agree with the manifest."
    detail += context.sample_note(read)
    shown = problems[:SHOWN_ROWS]
    return counted("missing_files", "problem=changed", "fail", len(problems), read, detail, shown)


def file_problem(data: bytes, row: dict[str, object]) -> str:
    """Return how a file differs from its manifest row, empty if it does not.

    Example:
        >>> file_problem(b"", {"image_id": "0" * 64})
        'sha256 differs from image_id'
    """
    if sha256_bytes(data) != row["image_id"]:
        return "sha256 differs from image_id"
    try:
        facts = read_facts(data)
    except ImageError as error:
        return f"not a usable image ({error.reason})"
    for name in ("width_px", "height_px", "codec"):
        if getattr(facts, name) != row[name]:
            return f"{name} is {getattr(facts, name)}, listed as {row[name]}"
    return ""
