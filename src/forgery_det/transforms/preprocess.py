"""`Preprocess`: the deterministic geometry between a decoded image and a detector, the same everywhere.

Training, evaluation, export and serving all run these numbers: uint8 in, uint8 out, Pillow's arithmetic where the
papers used Pillow (its resize is antialiased; OpenCV's and a plain tensor resize are not, and a detector of resampling
traces notices). Normalisation is not here: it lives inside a detector's `forward`, so that it is exported with the
weights.

A `Preprocess` is a tuple of steps; each step maps one image to one image, or to several views. It reads from and writes
to JSON, so a checkpoint or a bundle carries its geometry with it. No torch here: serving uses this module without it.

Rules for odd images: a one-pixel side is an ordinary size; an image smaller than a crop is padded (`CenterCrop`); of an
image longer than `MAX_ASPECT` times its short side, only the middle part is resized (`ResizeShort`), because a 1 x 8000
px strip brought to 224 px would otherwise need more than a gigabyte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import Registry, did_you_mean

ImageArray = npt.NDArray[np.uint8]
Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Padding = Literal["zero", "reflect"]

_KERNELS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_PADDINGS: dict[str, Literal["constant", "reflect"]] = {"zero": "constant", "reflect": "reflect"}

MAX_ASPECT = 64
"""Longest side over shortest side that `ResizeShort` keeps; what lies beyond, at both ends, is cut before resizing."""


class Step(Protocol):
    """One operation of a `Preprocess`: a frozen dataclass with a `kind`."""

    kind: ClassVar[str]

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the new image, or views stacked in front (VHWC)."""
        ...


def resize(image_HWC: ImageArray, width_px: int, height_px: int, kernel: Kernel) -> ImageArray:
    """Resize in Pillow's arithmetic (antialiased when it shrinks).

    Raises:
        ConfigError: The kernel is unknown.

    Example:
        >>> resize(np.zeros((4, 6, 3), np.uint8), 3, 2, "bicubic").shape
        (2, 3, 3)
    """
    if kernel not in _KERNELS:
        raise ConfigError(f"Unknown resize kernel {kernel!r}: {did_you_mean(kernel, _KERNELS)}")
    if image_HWC.shape[:2] == (height_px, width_px):
        return image_HWC
    return np.asarray(Image.fromarray(image_HWC).resize((width_px, height_px), _KERNELS[kernel]))


def _check_sides(step: str, **sides_px: int) -> None:
    for name, value in sides_px.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"Expected `{name}` of {step} to be a whole number of at least 1, got {value!r}.")


@dataclass(frozen=True, slots=True)
class ResizeShort:
    """Resize so that the shorter side is `size_px`, the aspect kept.

    The longer side is truncated to whole pixels, as torchvision does. Beyond an aspect of `MAX_ASPECT` the middle part
    of the longer side is used.
    """

    size_px: int
    kernel: Kernel = "bicubic"
    kind: ClassVar[str] = "resize_short"

    def __post_init__(self) -> None:
        """Check the size."""
        _check_sides(self.kind, size_px=self.size_px)

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the resized image."""
        height, width = image_HWC.shape[:2]
        longest = MAX_ASPECT * min(height, width)
        if max(height, width) > longest:
            image_HWC = CenterCrop(min(height, longest), min(width, longest))(image_HWC)
            height, width = image_HWC.shape[:2]
        if height <= width:
            return resize(image_HWC, int(self.size_px * width / height), self.size_px, self.kernel)
        return resize(image_HWC, self.size_px, int(self.size_px * height / width), self.kernel)


@dataclass(frozen=True, slots=True)
class ResizeExact:
    """Resize to `height_px` x `width_px`, the aspect not kept."""

    height_px: int
    width_px: int
    kernel: Kernel = "bilinear"
    kind: ClassVar[str] = "resize_exact"

    def __post_init__(self) -> None:
        """Check the sides."""
        _check_sides(self.kind, height_px=self.height_px, width_px=self.width_px)

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the resized image."""
        return resize(image_HWC, self.width_px, self.height_px, self.kernel)


@dataclass(frozen=True, slots=True)
class CenterCrop:
    """Cut the centre; a smaller image is first padded on both sides, as torchvision places it.

    `pad` is `zero` (black) or `reflect` (mirrored about the edge pixel, which is not repeated, as often as needed).
    """

    height_px: int
    width_px: int
    pad: Padding = "zero"
    kind: ClassVar[str] = "center_crop"

    def __post_init__(self) -> None:
        """Check the sides and the kind of padding."""
        _check_sides(self.kind, height_px=self.height_px, width_px=self.width_px)
        if self.pad not in _PADDINGS:
            raise ConfigError(f"Unknown padding {self.pad!r}: {did_you_mean(self.pad, _PADDINGS)}")

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the centre."""
        height, width = image_HWC.shape[:2]
        missing_h, missing_w = max(self.height_px - height, 0), max(self.width_px - width, 0)
        if missing_h or missing_w:
            # torchvision pads the odd pixel at the bottom and on the right.
            margins = ((missing_h // 2, (missing_h + 1) // 2), (missing_w // 2, (missing_w + 1) // 2), (0, 0))
            image_HWC = np.pad(image_HWC, margins, mode=_PADDINGS[self.pad])
            height, width = image_HWC.shape[:2]
        # round half to even, as torchvision's center_crop does.
        top, left = round((height - self.height_px) / 2), round((width - self.width_px) / 2)
        return image_HWC[top : top + self.height_px, left : left + self.width_px]


STEPS = Registry(
    "preprocessing step",
    {
        "center_crop": "forgery_det.transforms.preprocess:CenterCrop",
        "center_crop_floor": "forgery_det.transforms.steps_opencv:CenterCropFloor",
        "limit_side": "forgery_det.transforms.steps_geometry:LimitSide",
        "pad_to": "forgery_det.transforms.steps_geometry:PadTo",
        "resize_exact": "forgery_det.transforms.preprocess:ResizeExact",
        "resize_opencv": "forgery_det.transforms.steps_opencv:ResizeOpenCV",
        "resize_short": "forgery_det.transforms.preprocess:ResizeShort",
        "texture_mosaics": "forgery_det.transforms.steps_patches:TextureMosaics",
    },
)
"""Step kind -> class. A new kind of geometry is one class and one line here, never a registration on import: a
checkpoint or a bundle is read before anything has imported the module of its steps."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Steps applied in order to one decoded image.

    Args:
        steps: The operations; an empty tuple leaves the image as it is (detectors that take any size).

    Example:
        >>> preprocess = Preprocess((ResizeShort(32), CenterCrop(28, 28)))
        >>> preprocess(np.zeros((50, 40, 3), np.uint8)).shape
        (28, 28, 3)
        >>> Preprocess.from_json(preprocess.to_json()) == preprocess
        True
    """

    steps: tuple[Step, ...] = ()

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return uint8 HWC, or VHWC when a step makes several views.

        Raises:
            ConfigError: The input is not a uint8 RGB image.
        """
        if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or 0 in image_HWC.shape:
            raise ConfigError(
                f"Expected a decoded image, uint8 of shape (height, width, 3), got {image_HWC.dtype} of shape "
                f"{image_HWC.shape}. Decode files with forgery_det.core.image_io."
            )
        for step in self.steps:
            image_HWC = step(image_HWC)
        return np.ascontiguousarray(image_HWC)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the steps as JSON values: a list of `{"kind": ..., parameters}`."""
        return [{"kind": step.kind, **asdict(step)} for step in self.steps]  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, value: Sequence[Mapping[str, Any]]) -> Preprocess:
        """Build from what `to_json` returned.

        Raises:
            ConfigError: A step's kind or parameter is unknown.
        """
        steps = []
        for entry in value:
            parameters = dict(entry)
            kind = str(parameters.pop("kind", None))
            if kind not in STEPS:
                raise ConfigError(f"Unknown preprocessing step {kind!r}: {did_you_mean(kind, STEPS)}")
            try:
                steps.append(STEPS.get(kind)(**parameters))
            except TypeError as error:
                raise ConfigError(f"Expected the parameters of step {kind!r}, got {parameters}: {error}") from error
        return cls(tuple(steps))
