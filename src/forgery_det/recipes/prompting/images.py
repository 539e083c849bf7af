"""The images of a source that prompts describe: what the dataset stores of them, aligned as the detector will see them.

Nothing is fetched twice for a caption, and an image that the recipe refuses costs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forgery_det.recipes.annotations import Annotation
from forgery_det.recipes.prompt_sets import ContentImage
from forgery_det.recipes.recipe import SourceSpec
from forgery_det.recipes.rows import build_rows
from forgery_det.recipes.shards import StoredImages
from forgery_det.recipes.work import Record


def content_images(
    spec: SourceSpec, records: Mapping[str, Record], table: Mapping[str, Annotation] | None, out: Path
) -> tuple[ContentImage, ...]:
    """Return one image an original of a gathered source, in the order of the keys: its first piece.

    Args:
        spec: The source.
        records: Key -> record of every item.
        table: Key -> annotation, None without a table.
        out: Dataset folder.

    Raises:
        ConfigError: A field is missing or two places contradict each other.
    """
    candidates, _ = build_rows(spec, records, table, {}, "", paired=True)
    stored = StoredImages(out)
    images: dict[str, ContentImage] = {}
    for candidate in candidates:
        row = candidate.row
        found = stored.find(row, candidate.n_bytes) or out / row["path"]
        image = ContentImage(candidate.key, row["content_id"], row["source_id"], row["image_id"], found)
        images.setdefault(candidate.key, image)
    return tuple(images.values())
