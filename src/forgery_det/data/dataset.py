"""A manifest as a torch dataset: decode, augment, preprocess; a file that cannot be used is named, never replaced.

Nothing random happens here. Augmentation gets a generator seeded by (seed, epoch, position), so what an image looks
like in an epoch depends neither on the number of workers nor on the order in which they finish.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ImageError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.core.stored import read_stored
from forgery_det.transforms.preprocess import ImageArray, Preprocess
from forgery_det.transforms.tensors import to_tensor

Augment = Callable[[ImageArray, np.random.Generator], ImageArray]
"""A training augmentation: uint8 RGB and a generator in, uint8 RGB out."""


class Draw(NamedTuple):
    """What a sampler asks of the dataset.

    Args:
        epoch: From 0.
        position: Place in the epoch's order, from 0; with it, an image drawn twice is augmented in two ways.
        row: Row of the manifest.
    """

    epoch: int
    position: int
    row: int


class Item(NamedTuple):
    """One usable image.

    Args:
        image_CHW: float32 in [0, 1] (`image_VCHW` where the preprocessing makes views).
        label: 1 = generated, 0 = real.
        image_id: From the manifest.
    """

    image_CHW: Tensor
    label: int
    image_id: str


class BadFile(NamedTuple):
    """One image that cannot be used. A tuple, because Lightning moves batches and refuses frozen dataclasses in them.

    Args:
        image_id: From the manifest.
        path: From the manifest, relative to the dataset folder.
        reason: Stable word for tables (`truncated`, `unreadable`, `hash_mismatch`, ...), then the sentence for people.
    """

    image_id: str
    path: str
    reason: str


class ManifestDataset(Dataset[Item | BadFile]):
    """The images of a manifest, by row.

    Args:
        manifest: The images.
        preprocess: The detector's geometry.
        augment: Applied to the decoded image, before `preprocess`; None for evaluation.
        seed: Of the augmentation.
        verify_hash: Whether each file's bytes must have the sha256 that `image_id` states.
    """

    def __init__(
        self,
        manifest: Manifest,
        preprocess: Preprocess,
        augment: Augment | None = None,
        seed: int = 0,
        verify_hash: bool = False,
    ) -> None:
        # Plain lists: a polars frame must not be touched in a forked worker.
        self._root = Path(manifest.root)
        self._paths: list[str] = manifest.frame["path"].to_list()
        self._labels: list[int] = manifest.frame["label"].to_list()
        self._image_ids: list[str] = manifest.frame["image_id"].to_list()
        self._preprocess = preprocess
        self._augment = augment
        self._seed = seed
        self._verify_hash = verify_hash

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: int | Draw) -> Item | BadFile:
        """Return the image of a row; a plain row number counts as epoch 0, position = row."""
        draw = key if isinstance(key, Draw) else Draw(0, key, key)
        path, image_id = self._paths[draw.row], self._image_ids[draw.row]
        try:
            image_HWC = self._decode(self._root / path, image_id)
        except ImageError as error:
            return BadFile(image_id, path, str(error))
        if self._augment is not None:
            image_HWC = self._augment(image_HWC, np.random.default_rng((self._seed, draw.epoch, draw.position)))
        return Item(to_tensor(self._preprocess(image_HWC)), self._labels[draw.row], image_id)

    def _decode(self, path: Path, image_id: str) -> ImageArray:
        decoded = decode_file(path)
        if self._verify_hash and sha256_bytes(read_stored(path)) != image_id:
            raise ImageError("hash_mismatch", f"Expected bytes with the sha256 {image_id}, got others ({path})")
        return decoded.image_HWC
