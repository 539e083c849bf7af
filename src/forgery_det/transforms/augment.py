"""Training augmentations by name; the only file that imports albumentations.

An augmentation takes a decoded image and a generator, and returns an image; both uint8 RGB, of any size. All chance
comes from the generator, so the same (seed, epoch, position) gives the same picture on any number of workers.

`jpeg_blur` is the augmentation of Wang et al., "CNN-generated images are surprisingly easy to spot... for now" (CVPR
2020): Gaussian blur with sigma from U(0, 3) and JPEG with quality from {30, ..., 100}, each with probability 0.5 (0.1
in `jpeg_blur_light`), and a horizontal flip. Detectors trained without it tend to learn traces that one re-save
destroys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.transforms.preprocess import ImageArray

_NO_VERSION_CHECK: Final = "NO_ALBUMENTATIONS_UPDATE"


class Augmentation:
    """A named augmentation: `augmentation(image_HWC, rng) -> image_HWC`.

    The albumentations pipeline is made on first use in each process, so an instance can be sent to a worker.

    Args:
        name: Name in `AUGMENTATIONS`.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, image_HWC: ImageArray, rng: np.random.Generator) -> ImageArray:
        """Return the augmented image.

        Args:
            image_HWC: uint8 RGB; not changed.
            rng: The only source of chance.
        """
        pipeline = _pipeline(self.name)
        # A seed each: albumentations would give all transforms the same one, and blur and compression the same fate.
        for transform in pipeline.transforms:
            transform.set_random_seed(int(rng.integers(2**31)))
        augmented_HWC: ImageArray = pipeline(image=image_HWC)["image"]
        return augmented_HWC

    def __repr__(self) -> str:
        return f"Augmentation({self.name!r})"


def create_augment(name: str) -> Augmentation:
    """Return the augmentation called `name`.

    Raises:
        ConfigError: There is none; the text offers the nearest names.

    Example:
        >>> create_augment("flip")(np.zeros((4, 6, 3), np.uint8), np.random.default_rng(0)).shape
        (4, 6, 3)
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(f"Unknown augmentation {name!r}: {did_you_mean(name, AUGMENTATIONS)}")
    return Augmentation(name)


def _none(albumentations: Any) -> list[Any]:  # noqa: ARG001 - one signature for all
    return []


def _flip(albumentations: Any) -> list[Any]:
    return [albumentations.HorizontalFlip(p=0.5)]


def _jpeg_blur(probability: float) -> Callable[[Any], list[Any]]:
    def transforms(albumentations: Any) -> list[Any]:
        return [
            # blur_limit 0 lets the kernel's size follow from sigma.
            albumentations.GaussianBlur(blur_limit=0, sigma_limit=(0.0, 3.0), p=probability),
            albumentations.ImageCompression(compression_type="jpeg", quality_range=(30, 100), p=probability),
            *_flip(albumentations),
        ]

    return transforms


AUGMENTATIONS: Mapping[str, Callable[[Any], list[Any]]] = {
    "none": _none,
    "flip": _flip,
    "jpeg_blur": _jpeg_blur(0.5),
    "jpeg_blur_light": _jpeg_blur(0.1),
}
"""Name -> the albumentations transforms it is made of; a new augmentation is one entry here."""


@cache
def _pipeline(name: str) -> Any:
    albumentations = _import_albumentations()
    return albumentations.Compose(AUGMENTATIONS[name](albumentations))


def _import_albumentations() -> Any:
    """Import albumentations without its look for newer versions, which would be a network call during training."""
    before = os.environ.get(_NO_VERSION_CHECK)
    os.environ[_NO_VERSION_CHECK] = "1"
    try:
        import albumentations
    finally:
        if before is None:
            del os.environ[_NO_VERSION_CHECK]
        else:
            os.environ[_NO_VERSION_CHECK] = before
    return albumentations
