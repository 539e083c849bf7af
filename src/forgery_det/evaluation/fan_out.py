"""Decode once, then make every copy of the image that is to be scored.

    file -> pixels -> (clean, jpeg 1, jpeg 2, ..., blur 6) -> the detector's preprocessing -> batches

Decoding costs about as much as a cheap perturbation (`benchmarks/perturbations.py`), so it is done once an image and
not once a condition; where every copy is encoded again, the encoder is what takes the time. Copies are made one after
the other: without loader processes, one decoded image, one copy of it and one batch are in memory; a loader process
sends all copies of an image at once, after preprocessing.

Clean images are batched among themselves, by rows: the same batches, and so the same logits to the last bit, as without
perturbations. Copies are batched in the order in which they are made; a batch ends early where the size changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.evaluation.perturbations import UNPERTURBED, Condition
from forgery_det.transforms.perturb import perturb
from forgery_det.transforms.preprocess import ImageArray, Preprocess


class Copy(NamedTuple):
    """One image under one condition.

    Args:
        image_id: From the manifest.
        label: 1 = generated, 0 = real.
        condition: What was done to it.
        view: uint8 after the detector's preprocessing (HWC or VHWC); None where `bad` says why there is none.
        bad: Why there is no view, a stable word first; None when there is one.
    """

    image_id: str
    label: int
    condition: Condition
    view: ImageArray | None
    bad: str | None = None


class CopyDataset(Dataset[tuple[Copy, ...]]):
    """All copies of each image of a manifest, by row: the clean one first, then those of the conditions.

    Args:
        manifest: The images.
        preprocess: The detector's geometry, applied to every copy.
        conditions: Perturbations and severities.
        perturbed_split: Images of this split get perturbed copies; the others are only taken clean.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocess: Preprocess,
        conditions: Sequence[Condition] = (),
        perturbed_split: str | None = None,
    ) -> None:
        # Plain lists: a polars frame must not be touched in a forked worker.
        frame = manifest.frame
        self._files = [Path(manifest.root) / path for path in frame["path"].to_list()]
        self._image_ids: list[str] = frame["image_id"].to_list()
        self._labels: list[int] = frame["label"].to_list()
        self._perturbed: list[bool] = (frame["split"] == (perturbed_split or "")).to_list()
        self._preprocess = preprocess
        self._conditions = tuple(conditions)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> tuple[Copy, ...]:
        """Return all copies of the image of a row."""
        return tuple(self.copies(row))

    def conditions(self, row: int) -> tuple[Condition, ...]:
        """Return the conditions of a row, in the order of its copies."""
        return (UNPERTURBED, *self._conditions) if self._perturbed[row] else (UNPERTURBED,)

    def copies(self, row: int) -> Iterator[Copy]:
        """Decode the image of a row and yield its copies, one at a time; bad ones say why."""
        image_id, label = self._image_ids[row], self._labels[row]
        try:
            image_HWC = decode_file(self._files[row]).image_HWC
        except ImageError as error:
            for condition in self.conditions(row):
                yield Copy(image_id, label, condition, None, str(error))
            return
        for condition in self.conditions(row):
            yield self._copy(image_HWC, image_id, label, condition)

    def _copy(self, image_HWC: ImageArray, image_id: str, label: int, condition: Condition) -> Copy:
        if condition.is_clean:
            return Copy(image_id, label, condition, self._preprocess(image_HWC))
        try:
            changed_HWC = perturb(image_HWC, condition.perturbation, condition.severity, image_id)
        except ImageError as error:
            return Copy(image_id, label, condition, None, str(error))
        return Copy(image_id, label, condition, self._preprocess(changed_HWC))


def iterate_copies(dataset: CopyDataset, num_workers: int = 0) -> Iterator[Copy]:
    """Yield every copy of every image, in the order of the rows.

    Args:
        dataset: The images.
        num_workers: Processes that decode and perturb; 0 does it in this one. The copies are the same.
    """
    if num_workers == 0:
        for row in range(len(dataset)):
            yield from dataset.copies(row)
        return
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=num_workers,
        # The default would turn the arrays into tensors, each with a file handle of its own on the way here.
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )
    for copies in loader:
        yield from copies


def batch_copies(copies: Iterable[Copy], batch_size: int) -> Iterator[tuple[Copy, ...]]:
    """Put copies into batches of at most `batch_size`; clean and perturbed ones are never mixed.

    A batch of clean copies is `batch_size` rows, bad ones included, whatever their sizes. A batch of perturbed copies
    holds views of one size; a bad one comes alone.

    Example:
        >>> clean = [Copy(name, 0, UNPERTURBED, None, "empty") for name in "abc"]
        >>> [len(batch) for batch in batch_copies(clean, 2)]
        [2, 1]
    """
    clean: list[Copy] = []
    perturbed: list[Copy] = []
    for copy in copies:
        if copy.condition.is_clean:
            clean.append(copy)
            if len(clean) == batch_size:
                yield tuple(clean)
                clean = []
        elif copy.view is None:
            yield (copy,)
        else:
            if perturbed and (len(perturbed) == batch_size or _size(perturbed[-1]) != copy.view.shape):
                yield tuple(perturbed)
                perturbed = []
            perturbed.append(copy)
    yield from (tuple(rest) for rest in (clean, perturbed) if rest)


def _size(copy: Copy) -> tuple[int, ...]:
    return () if copy.view is None else copy.view.shape


def _as_it_is(copies: Any) -> Any:
    return copies
