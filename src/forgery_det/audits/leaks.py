"""Do splits leak: is the same picture, the same photograph or the same content on both sides?

A detector that saw a picture in training is not tested by its copy. Alike are images with equal perceptual hashes or
hashes within `phash_distance` bits, joined into families (connected components), so a copy of a copy belongs too.
Equal bytes have equal hashes; a manifest cannot list the same bytes twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from forgery_det.audits.context import AuditContext
from forgery_det.audits.report import AuditFinding, Level
from forgery_det.recipes.phash import PairArray, near_duplicates, phash

SHOWN_ROWS = 20
_DEDUP = "Build it again with dedup."
SHOWN_COLUMNS = ("family", "image_id", "path", "split", "label", "source_id", "alike")


def duplicates_across_splits(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return families of copies across splits (fail), across classes (fail) and within one split (warn)."""
    frame = with_hashes(context)
    hashed = frame.filter(pl.col("phash").is_not_null())
    pairs = near_duplicates(hashed["phash"].to_list(), context.options.phash_distance)
    unseen = frame.height - hashed.height
    note = f" {unseen} images could not be decoded and were left out." if unseen else ""
    return family_findings("duplicates_across_splits", families_of(hashed, pairs), hashed.height, _DEDUP, note)


def family_findings(name: str, families: pl.DataFrame, n: int, remedy: str, note: str) -> tuple[AuditFinding, ...]:
    """Return three findings on families of alike images: across splits, across classes, within one split.

    Args:
        name: Registry name of the audit.
        families: What `families_of` returned.
        n: Images that were compared.
        remedy: A sentence on how to mend copies across splits.
        note: A sentence with a leading blank, for every finding.
    """
    return tuple(
        _alike(name, families.filter(chosen), where, level, n, text, note)
        for where, level, chosen, text in _kinds(remedy)
    )


def _kinds(remedy: str) -> tuple[tuple[str, Level, pl.Expr, str], ...]:
    across_splits = pl.col("split").n_unique().over("family") > 1
    classes = pl.col("label").n_unique().over("family") > 1
    # A family of one content (a photograph and its reconstructions) is alike on purpose.
    on_purpose = (pl.col("content_id").n_unique().over("family") == 1) & pl.col("content_id").is_not_null()
    one_source = pl.col("source_id").n_unique().over("family") == 1
    return (
        (
            "across_splits",
            "fail",
            across_splits,
            f"look like an image of another split: the test would repeat the training. {remedy}",
        ),
        (
            "across_classes",
            "fail",
            classes & ~on_purpose,
            "look like an image of the other class: one of the labels is wrong. Look at them.",
        ),
        (
            "within_split",
            "warn",
            ~across_splits & ~classes & ~on_purpose & ~one_source,
            "look like another source's image of their split: they count twice, and intervals are too narrow.",
        ),
    )


def with_hashes(context: AuditContext) -> pl.DataFrame:
    """Return the manifest sorted by `image_id`, with hashes computed where it has none; null where that fails."""
    frame = context.sample(None)
    missing = frame.filter(pl.col("phash").is_null())
    if not missing.height:
        return frame
    computed = pl.Series("phash_computed", context.map_images(missing["path"], phash), dtype=pl.String)
    added = missing.select("image_id").with_columns(computed)
    return frame.join(added, on="image_id", how="left", maintain_order="left").with_columns(
        pl.coalesce("phash", "phash_computed").alias("phash")
    )


def families_of(hashed: pl.DataFrame, pairs: PairArray) -> pl.DataFrame:
    """Return the images that are in a pair, with the number of their family (connected component) in `family`.

    Args:
        hashed: Images.
        pairs: Rows of `hashed` that are alike, [P, 2].
    """
    size = hashed.height
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, family_N = connected_components(graph, directed=False)
    return hashed.with_columns(pl.Series("family", family_N, dtype=pl.Int64)).filter(pl.len().over("family") > 1)


def _alike(name: str, images: pl.DataFrame, where: str, level: Level, n: int, text: str, note: str) -> AuditFinding:
    families = images["family"].n_unique()
    told = f"{images.height} images in {families} {'family' if families == 1 else 'families'} {text}"
    detail = (told if families else "No copies found.") + note
    columns = [column for column in SHOWN_COLUMNS if column in images.columns]
    shown = images.sort("family", "image_id").select(columns).head(SHOWN_ROWS).to_dicts()
    return counted(name, where, level, images.height, n, detail, shown)


def source_across_splits(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return `source_id`s (fail) and `content_id`s (warn) that lie in more than one split."""
    frame = context.manifest.frame
    return (
        _straddling(
            frame,
            "source_id",
            "fail",
            "lie in more than one split, so pieces of one photograph are in training and test. "
            "Split by source_id (split in the recipe does).",
        ),
        _straddling(
            frame,
            "content_id",
            "warn",
            "lie in more than one split: a photograph and images made from it are on both sides. "
            "Give them one source_id to keep them together.",
        ),
    )


def _straddling(frame: pl.DataFrame, column: str, level: Level, text: str) -> AuditFinding:
    groups = (
        frame.filter(pl.col(column).is_not_null())
        .group_by(column)
        .agg(pl.col("split").unique().sort().alias("splits"), pl.len().alias("images"))
        .filter(pl.col("splits").list.len() > 1)
        .sort(column)
    )
    n = frame.height - frame[column].null_count()
    detail = f"{groups.height} {column}s {text}" if groups.height else f"Each {column} lies in one split."
    rows = groups.head(SHOWN_ROWS).to_dicts()
    return counted("source_across_splits", f"column={column}", level, groups.height, n, detail, rows)


def counted(
    name: str, where: str, level: Level, found: int, n: int, detail: str, rows: Sequence[Mapping[str, Any]] = ()
) -> AuditFinding:
    """Return the finding of an audit that counts defects: `level` if there are any, else `pass`."""
    return AuditFinding(name, where, level if found else "pass", found, None, None, 0, n, detail, tuple(rows))
