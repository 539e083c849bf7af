"""The worst mistakes with their pictures: what a reader looks at to see what a detector has really learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_file, encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.core.types import GENERATED, REAL
from forgery_det.detectors.base import Detector
from forgery_det.evaluation.heatmaps import overlay
from forgery_det.evaluation.thresholds import Thresholds
from forgery_det.reporting.data import Gallery, Mistake
from forgery_det.transforms.preprocess import resize

THUMBNAIL_PX = 240
"""Longer side of a thumbnail: sharp on a phone, a few kilobytes."""

_HEAT_WORDS = (
    "Below each picture: what drives the logit. Each of 8 x 8 parts is covered in turn; orange parts raise the logit "
    "(towards generated), blue ones lower it; the number is the largest change by covering one part. A small number "
    "means that no single part decides. Where every part is blue, the edge of the cover itself raises the logit."
)
_POINTS = {
    "fpr_5pct": "the threshold for 5 % FPR",
    "fpr_1pct": "the threshold for 1 % FPR",
    "balanced": "the balanced threshold",
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which threshold says what is wrong, and its name for the reader."""

    threshold: float | None
    words: str


@dataclass(frozen=True, slots=True)
class _Pictures:
    """What a mistake looks like: a thumbnail, and a heat map where one is wanted. Empty where there is none."""

    thumbnail: bytes = b""
    heat: bytes = b""
    heat_change: float | None = None


def make_gallery(
    table: pl.DataFrame, manifest: Manifest, thresholds: Thresholds, count: int, heat_of: Detector | None = None
) -> Gallery:
    """Return the real images with the highest and the generated images with the lowest logits.

    At most one image of each `source_id` is shown, so that the crops of one photograph do not fill the page.

    Args:
        table: Predictions joined with the manifest.
        manifest: Where the images lie.
        thresholds: The first of 5 % FPR, 1 % FPR and balanced that exists says which pictures are wrong.
        count: Pictures of each kind.
        heat_of: Detector whose heat map stands beside each picture; None for none.
    """
    rule = next((_Rule(thresholds.value[p], words) for p, words in _POINTS.items() if p in thresholds.value), None)
    rule = rule or _Rule(None, "no threshold")
    explanation = (
        f"The {count} worst of each kind, at most one for each source_id; “wrong” is judged by {rule.words}. "
        "Look for what the false alarms share, and what the misses share: is it the subject, the style, or the traces?"
    )
    if heat_of is not None:
        explanation += f" {_HEAT_WORDS}"
    return Gallery(
        explanation,
        _worst(table, manifest, rule, count, "false_alarm", heat_of),
        _worst(table, manifest, rule, count, "miss", heat_of),
    )


def _worst(
    table: pl.DataFrame,
    manifest: Manifest,
    rule: _Rule,
    count: int,
    kind: Literal["false_alarm", "miss"],
    heat_of: Detector | None,
) -> tuple[Mistake, ...]:
    label = REAL if kind == "false_alarm" else GENERATED
    rows = (
        table.filter(pl.col("label") == label)
        .sort("logit", "image_id", descending=[kind == "false_alarm", False])
        .unique("source_id", keep="first", maintain_order=True)
        .head(count)
    )
    return tuple(
        _mistake(row, _pictures(manifest, row["path"], heat_of), rule, kind) for row in rows.iter_rows(named=True)
    )


def _mistake(row: dict[str, Any], pictures: _Pictures, rule: _Rule, kind: Literal["false_alarm", "miss"]) -> Mistake:
    called_generated = None if rule.threshold is None else row["logit"] >= rule.threshold
    return Mistake(
        kind=kind,
        image_id=row["image_id"],
        path=row["path"],
        generator=row["generator"],
        source=row["source"],
        logit=row["logit"],
        score=row["score"],
        wrong=None if called_generated is None else called_generated == (kind == "false_alarm"),
        prompt=row["prompt"],
        thumbnail=pictures.thumbnail,
        heat=pictures.heat,
        heat_change=pictures.heat_change,
    )


def _pictures(manifest: Manifest, path: str, heat_of: Detector | None) -> _Pictures:
    """Return small WebPs; empty when the file, which was scored, cannot be read any more: the page then says so."""
    try:
        image_HWC = decode_file(manifest.image_file(path)).image_HWC
    except (ImageError, OSError):
        return _Pictures()
    height, width = image_HWC.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    width_px, height_px = max(1, round(width * scale)), max(1, round(height * scale))
    thumbnail = encode_image(resize(image_HWC, width_px, height_px, "lanczos"), "webp", 80)
    if heat_of is None:
        return _Pictures(thumbnail)
    heat = overlay(heat_of, image_HWC, width_px, height_px)
    return _Pictures(thumbnail, encode_image(heat.picture_HWC, "webp", 80), heat.strongest)
