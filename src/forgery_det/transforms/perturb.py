"""Evaluation perturbations: what happens to a picture between a camera or generator and a detector, by name.

    perturbation(image_HWC, severity, rng) -> image_HWC          uint8 RGB in, uint8 RGB out, often of another size

Augmentation (`augment`) is drawn at random for training; a perturbation is a fixed thing that can be cited. Its
severities are numbered from 1 and each stands for stated parameters: `jpeg` at severity 4 is quality 70, here and in
every run. Severity 0 is left for the image as it is stored.

Chance (noise, the place of a crop, words of a caption) comes from `image_rng`, a generator seeded by the image, the
perturbation and the severity. So the copy of an image depends neither on the order of the images nor on which other
perturbations are asked for.

Rules for odd images: any size from 1 x 1 px on is taken. Sides are rounded to whole pixels and never fall below 1 px.
A result of more than `MAX_PIXELS` pixels, or one that a codec cannot hold (WebP ends at 16383 px), is an `ImageError`,
which the scoring counts; it is never made smaller in silence. The input array is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_facts import DecodeLimits
from forgery_det.core.registry import Registry
from forgery_det.transforms.preprocess import ImageArray

MAX_PIXELS = DecodeLimits().max_pixels
"""Largest perturbed copy, in pixels: no more than the decoder would accept."""

Family = Literal["codec", "resize", "filter", "geometry", "colour", "overlay", "chain"]
Parameters = Mapping[str, float | tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One perturbation with its table of severities.

    Args:
        name: Registry name.
        family: Kind of change; charts put one family on one page.
        summary: One sentence: what it does.
        steps: Parameters of each severity, the first for severity 1; from weak to strong unless the summary says that
            they are only different.
        apply: `apply(image_HWC, rng, **parameters)`.
    """

    name: str
    family: Family
    summary: str
    steps: tuple[Parameters, ...]
    apply: Callable[..., ImageArray]

    @property
    def severities(self) -> dict[int, Parameters]:
        """Severity -> parameters, from 1 on."""
        return dict(enumerate(self.steps, start=1))

    def parameters(self, severity: int) -> Parameters:
        """Return the parameters of a severity.

        Raises:
            ConfigError: There is no such severity.
        """
        if isinstance(severity, bool) or not isinstance(severity, int) or not 1 <= severity <= len(self.steps):
            raise ConfigError(f"Expected a severity of {self.name!r} in [1, {len(self.steps)}], got {severity!r}.")
        return self.steps[severity - 1]

    def describe(self, severity: int) -> str:
        """Return the parameters of a severity in words, for instance `quality 70`; empty where there is nothing to set.

        Raises:
            ConfigError: There is no such severity.
        """
        return ", ".join(f"{name} {_words(value)}" for name, value in self.parameters(severity).items())

    def __call__(self, image_HWC: ImageArray, severity: int, rng: np.random.Generator) -> ImageArray:
        """Return the perturbed copy, C-contiguous.

        Args:
            image_HWC: uint8 RGB of any size; not changed.
            severity: From 1 on.
            rng: The only source of chance.

        Raises:
            ConfigError: No such severity, or the input is not a uint8 RGB image.
            ImageError: The result would be too large, or its codec cannot hold it.
        """
        parameters = self.parameters(severity)
        if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or 0 in image_HWC.shape:
            raise ConfigError(
                f"Expected a decoded image, uint8 of shape (height, width, 3), got {image_HWC.dtype} of shape "
                f"{image_HWC.shape}. Decode files with forgery_det.core.image_io."
            )
        return np.ascontiguousarray(self.apply(image_HWC, rng, **parameters))


_MODULE = "forgery_det.transforms.perturb_"
PERTURBATIONS = Registry(
    "perturbation",
    {
        "avif": f"{_MODULE}codec:AVIF",
        "blur": f"{_MODULE}filter:BLUR",
        "colour_cast": f"{_MODULE}colour:COLOUR_CAST",
        "contrast_less": f"{_MODULE}colour:CONTRAST_LESS",
        "crop_centre": f"{_MODULE}geometry:CROP_CENTRE",
        "crop_random": f"{_MODULE}geometry:CROP_RANDOM",
        "downscale_bicubic": f"{_MODULE}resize:DOWNSCALE_BICUBIC",
        "downscale_bilinear": f"{_MODULE}resize:DOWNSCALE_BILINEAR",
        "downscale_lanczos": f"{_MODULE}resize:DOWNSCALE_LANCZOS",
        "downscale_nearest": f"{_MODULE}resize:DOWNSCALE_NEAREST",
        "gamma_darker": f"{_MODULE}colour:GAMMA_DARKER",
        "gamma_lighter": f"{_MODULE}colour:GAMMA_LIGHTER",
        "hflip": f"{_MODULE}geometry:HFLIP",
        "jpeg": f"{_MODULE}codec:JPEG",
        "messenger": f"{_MODULE}chain:MESSENGER",
        "noise": f"{_MODULE}filter:NOISE",
        "overlay_text": f"{_MODULE}overlay:OVERLAY_TEXT",
        "recapture": f"{_MODULE}recapture:RECAPTURE",
        "rot90": f"{_MODULE}geometry:ROT90",
        "saturation_less": f"{_MODULE}colour:SATURATION_LESS",
        "saturation_more": f"{_MODULE}colour:SATURATION_MORE",
        "screenshot": f"{_MODULE}chain:SCREENSHOT",
        "social_feed": f"{_MODULE}chain:SOCIAL_FEED",
        "upscale_bicubic": f"{_MODULE}resize:UPSCALE_BICUBIC",
        "upscale_bilinear": f"{_MODULE}resize:UPSCALE_BILINEAR",
        "upscale_lanczos": f"{_MODULE}resize:UPSCALE_LANCZOS",
        "upscale_nearest": f"{_MODULE}resize:UPSCALE_NEAREST",
        "vflip": f"{_MODULE}geometry:VFLIP",
        "webp": f"{_MODULE}codec:WEBP",
    },
)
"""Perturbation name -> where it lives. A new one is a function, its table of severities, and one line here."""


def image_rng(image_id: str, name: str, severity: int) -> np.random.Generator:
    """Return the generator of one copy of one image; the same three arguments give the same numbers.

    Example:
        >>> first, again = image_rng("ab", "noise", 1), image_rng("ab", "noise", 1)
        >>> bool(first.integers(1000) == again.integers(1000))
        True
    """
    return np.random.default_rng(int(sha256_bytes(canonical_json([image_id, name, severity]).encode()), 16))


def perturb(image_HWC: ImageArray, name: str, severity: int, image_id: str) -> ImageArray:
    """Return the copy of an image that every run gets for this name, severity and `image_id`.

    Args:
        image_HWC: uint8 RGB of any size; not changed.
        name: Name in `PERTURBATIONS`.
        severity: From 1 on.
        image_id: Seeds what chance there is.

    Raises:
        UnknownNameError: No such perturbation.
        ConfigError: No such severity, or not a uint8 RGB image.
        ImageError: The result would be too large, or its codec cannot hold it.

    Example:
        >>> perturb(np.zeros((8, 12, 3), np.uint8), "downscale_bicubic", 3, "ab").shape
        (4, 6, 3)
    """
    found: Perturbation = PERTURBATIONS.get(name)
    return found(image_HWC, severity, image_rng(image_id, name, severity))


def check_pixels(width_px: int, height_px: int) -> None:
    """Refuse a copy of more than `MAX_PIXELS` pixels before memory is spent on it.

    Raises:
        ImageError: `too_many_pixels`.
    """
    if width_px * height_px > MAX_PIXELS:
        detail = f"Expected a perturbed copy of at most {MAX_PIXELS} pixels, got {width_px} x {height_px} px."
        raise ImageError("too_many_pixels", detail)


def _words(value: float | Sequence[float]) -> str:
    return " then ".join(f"{number:g}" for number in (value if isinstance(value, Sequence) else [value]))
