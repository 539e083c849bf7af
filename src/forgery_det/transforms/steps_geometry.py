"""Steps for detectors that take images of any size: bounds on the size, without resampling.

Resampling would destroy the traces that these detectors read, so an image beyond a bound loses its border instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgery_det.core.errors import ConfigError
from forgery_det.transforms.preprocess import CenterCrop, ImageArray, Padding


def _check_side(step: str, name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"Expected `{name}` of {step} to be a whole number of at least 1, got {value!r}.")


@dataclass(frozen=True, slots=True)
class LimitSide:
    """Keep the central `max_side_px` of each side that is longer; all else stays as it is.

    Example:
        >>> import numpy as np
        >>> LimitSide(100)(np.zeros((40, 300, 3), np.uint8)).shape
        (40, 100, 3)
    """

    max_side_px: int
    kind: ClassVar[str] = "limit_side"

    def __post_init__(self) -> None:
        """Check the side."""
        _check_side(self.kind, "max_side_px", self.max_side_px)

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the centre, or the image itself."""
        height, width = image_HWC.shape[:2]
        return CenterCrop(min(height, self.max_side_px), min(width, self.max_side_px))(image_HWC)


@dataclass(frozen=True, slots=True)
class PadTo:
    """Pad each side that is shorter than `min_side_px` to it, the image in the middle; longer sides stay.

    `pad` as in `CenterCrop`; the odd pixel goes to the bottom and to the right.

    Example:
        >>> import numpy as np
        >>> PadTo(100)(np.zeros((40, 300, 3), np.uint8)).shape
        (100, 300, 3)
    """

    min_side_px: int
    pad: Padding = "reflect"
    kind: ClassVar[str] = "pad_to"

    def __post_init__(self) -> None:
        """Check the side."""
        _check_side(self.kind, "min_side_px", self.min_side_px)

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the padded image."""
        height, width = image_HWC.shape[:2]
        return CenterCrop(max(height, self.min_side_px), max(width, self.min_side_px), self.pad)(image_HWC)
