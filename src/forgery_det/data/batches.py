"""Batches: the usable images of some rows, and the names of the unusable ones.

The rule for bad files: a batch holds the images that could be read, in order, and lists the others in `bad`; nothing
takes their place. A batch of bad files alone is delivered too, with no image in it (`image_BCHW` of shape
(0, 3, 0, 0)), so that a reader sees every bad file once; whoever computes on batches looks at `len(batch.image_id)`
first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.data.dataset import BadFile, Item, ManifestDataset
from forgery_det.transforms.preprocess import Preprocess


class Batch(NamedTuple):
    """Images of a batch, and the files that should have been in it.

    Args:
        image_BCHW: float32 in [0, 1]; `image_BVCHW` where the preprocessing makes views.
        label_B: float32, 1 = generated, 0 = real.
        image_id: One an image.
        bad: Files that cannot be used; none of them is among the images.
    """

    image_BCHW: Tensor
    label_B: Tensor
    image_id: tuple[str, ...]
    bad: tuple[BadFile, ...]


def collate(entries: Sequence[Item | BadFile]) -> Batch:
    """Put the entries of one batch together.

    Raises:
        ConfigError: The images have different sizes after preprocessing.
    """
    items = [entry for entry in entries if isinstance(entry, Item)]
    bad = tuple(entry for entry in entries if isinstance(entry, BadFile))
    if not items:
        return Batch(torch.empty(0, 3, 0, 0), torch.empty(0), (), bad)
    first = items[0]
    for item in items:
        if item.image_CHW.shape != first.image_CHW.shape:
            raise ConfigError(
                f"Expected images of one size in a batch, got {_size(first)} ({first.image_id[:12]}) and {_size(item)} "
                f"({item.image_id[:12]}) after preprocessing. This detector keeps the size of an image: use batch_size "
                "1, or a detector setting with a fixed size."
            )
    label_B = torch.tensor([item.label for item in items], dtype=torch.float32)
    return Batch(torch.stack([item.image_CHW for item in items]), label_B, tuple(item.image_id for item in items), bad)


def iterate_batches(
    manifest: Manifest, preprocess: Preprocess, batch_size: int, num_workers: int = 0, verify_hash: bool = False
) -> Iterator[Batch]:
    """Yield all images of a manifest in order, without augmentation.

    Args:
        manifest: The images.
        preprocess: The detector's geometry.
        batch_size: Rows a batch, at least 1.
        num_workers: Processes that decode; 0 decodes in this one. The numbers are the same.
        verify_hash: Whether each file's bytes must have the sha256 that `image_id` states.

    Raises:
        ConfigError: The images of a batch have different sizes after preprocessing.
    """
    dataset = ManifestDataset(manifest, preprocess, verify_hash=verify_hash)
    yield from DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        # Its own generator: a loader otherwise draws a seed from the global one at every pass.
        generator=torch.Generator(),
    )


def _size(item: Item) -> str:
    return " x ".join(str(side) for side in item.image_CHW.shape)
