"""The images of a dataset that was already built, so that datasets can be joined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ManifestError, SourceError
from forgery_det.core.manifest import Manifest
from forgery_det.core.stored import read_stored
from forgery_det.recipes.annotations import ITEM_FIELDS
from forgery_det.recipes.sources.base import Skip, Source, SourceContext, SourceItem
from forgery_det.recipes.sources.outlook import Download, Expected, Outlook


@dataclass(frozen=True, slots=True)
class ManifestParameters:
    """Keys of a `manifest` source.

    Args:
        dataset: Dataset folder, relative to the recipe's folder or absolute; `~` is expanded.
        keep_split: Keep each row's split; otherwise this recipe's split policy decides.
    """

    dataset: str
    keep_split: bool = False


class ManifestSource(Source):
    """Every image of a dataset, in the order of `image_id`, which is the key.

    Rows keep what they say about the image (label, generator, prompt and the rest); facts of the file, the perceptual
    hash and, unless `keep_split`, the split are found anew. A file that no longer has its `image_id` is refused.
    """

    Parameters = ManifestParameters
    gives_fields = True

    def __init__(self, parameters: ManifestParameters, context: SourceContext) -> None:
        self._keep_split = parameters.keep_split
        self._source_id = context.source_id
        self._dataset = context.resolve(parameters.dataset)

    def identity(self) -> Mapping[str, Any]:
        """Return the folder and `keep_split`; the rows themselves are compared one by one."""
        return {"dataset": str(self._dataset), "keep_split": self._keep_split}

    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:  # noqa: ARG002 - random access
        """Yield the images.

        Raises:
            SourceError: The folder holds no valid dataset.
        """
        try:
            manifest = Manifest.load(self._dataset)
        except ManifestError as error:
            raise SourceError(f"{error} (source {self._source_id!r}: dataset)") from error
        for row in manifest.frame.sort("image_id").iter_rows(named=True):
            fields = {name: row[name] for name in ITEM_FIELDS if row[name] is not None}
            if not self._keep_split:
                del fields["split"]
            yield self._item(manifest, row, fields, skip)

    def outlook(self) -> Outlook:
        """Return the rows of the dataset."""
        try:
            manifest = Manifest.load(self._dataset)
        except ManifestError:
            return Outlook(downloads=(Download(f"{self._dataset} (to be built first)", None, False),), more=None)
        names = [name for name in ITEM_FIELDS if self._keep_split or name != "split"]
        rows = manifest.frame.sort("image_id").iter_rows(named=True)
        kept = ((row["image_id"], {name: row[name] for name in names if row[name] is not None}) for row in rows)
        return Outlook(tuple(Expected(key, fields) for key, fields in kept))

    def _item(self, manifest: Manifest, row: Mapping[str, Any], fields: dict[str, Any], skip: Skip) -> SourceItem:
        key = row["image_id"]
        plain = {name: str(value) for name, value in fields.items()}
        stamp = sha256_bytes(canonical_json(plain).encode("utf-8"))[:16]
        if skip(key, stamp):
            return SourceItem(key, stamp)
        try:
            data = read_stored(manifest.image_file(row["path"]))
        except OSError as error:
            return SourceItem(key, refusal=("unreadable", f"Expected {row['path']}, got: {error.strerror}."))
        if sha256_bytes(data) != key:
            return SourceItem(key, refusal=("changed_bytes", f"Expected the bytes of `image_id` in {row['path']}."))
        return SourceItem(key, stamp, data, fields)
