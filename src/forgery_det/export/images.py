"""Real images for parity, calibration and golden files: decoded and cut as serving does it, in a fixed order.

`Preprocess` gives uint8 views; `as_input` makes the graph's float32 of them with the arithmetic of
`transforms.tensors.to_tensor`, in numpy, because that is what a runtime without torch does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.core.types import GENERATED, REAL
from forgery_det.data.dataset import BadFile
from forgery_det.transforms.preprocess import ImageArray, Preprocess

FloatArray = NDArray[np.float32]

SPLIT = "val"
"""The split on which everything here is measured and fitted; `test` stays for the evaluation."""


MAX_IMAGES = 1000
"""Images on which parity is measured when `val` has more; as many of each class, as far as there are."""


@dataclass(frozen=True, slots=True, eq=False)
class InputBatch:
    """Images of one shape, as the graph takes them.

    Args:
        image_BCHW: float32 in [0, 1]; `image_BVCHW` where the geometry makes views.
        image_id: One an image, as are the next two.
        path: Relative to the dataset folder.
        label: 1 = generated, 0 = real.
    """

    image_BCHW: FloatArray
    image_id: tuple[str, ...]
    path: tuple[str, ...]
    label: tuple[int, ...]


def as_input(views: Sequence[ImageArray]) -> FloatArray:
    """Return float32 in [0, 1] with channels first, of uint8 views of one shape.

    Example:
        >>> as_input([np.full((4, 6, 3), 255, np.uint8)]).shape
        (1, 3, 4, 6)
    """
    return np.moveaxis(np.stack(views), -1, -3).astype(np.float32, order="C") / np.float32(255.0)


def choose_images(manifest: Manifest, max_images: int) -> Manifest:
    """Return the images of `val` to measure on: all, or the first of each class by `image_id`, which is a hash.

    Raises:
        ConfigError: `max_images` is below 2, or `val` lacks a class.
    """
    if max_images < 2:
        raise ConfigError(f"Expected `max_images` of at least 2, got {max_images}.")
    val = manifest.frame.filter(pl.col("split") == SPLIT)
    classes = [val.filter(pl.col("label") == label).sort("image_id") for label in (REAL, GENERATED)]
    if not all(frame.height for frame in classes):
        raise ConfigError(
            f"Expected real and generated images in the split `{SPLIT}` to measure parity on, got "
            f"{classes[REAL].height} real and {classes[GENERATED].height} generated in {manifest.root}. "
            "Give the dataset that the detector was trained on."
        )
    small, large = sorted(classes, key=lambda frame: frame.height)
    n_small = min(small.height, max_images // 2)
    chosen = pl.concat([small.head(n_small), large.head(max_images - n_small)])
    return manifest.subset(pl.col("image_id").is_in(chosen["image_id"].implode()))


def read_batches(
    images: Manifest, preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[tuple[InputBatch, ...], tuple[BadFile, ...]]]:
    """Yield the inputs of every `batch_size` rows, one batch for each shape, and the files that cannot be used.

    Raises:
        ConfigError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected `batch_size` of at least 1, got {batch_size}.")
    rows = images.frame.select("image_id", "path", "label").iter_rows()
    while group := list(islice(rows, batch_size)):
        shapes: dict[tuple[int, ...], list[tuple[ImageArray, str, str, int]]] = {}
        bad = []
        for image_id, path, label in group:
            try:
                view = preprocess(decode_file(images.image_file(path)).image_HWC)
            except ImageError as error:
                bad.append(BadFile(image_id, path, str(error)))
                continue
            shapes.setdefault(view.shape, []).append((view, image_id, path, label))
        yield tuple(_batch(entries) for entries in shapes.values()), tuple(bad)


def _batch(entries: Sequence[tuple[ImageArray, str, str, int]]) -> InputBatch:
    views, image_id, path, label = zip(*entries, strict=True)
    return InputBatch(as_input(views), image_id, path, label)
