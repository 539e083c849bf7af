"""Steps that reproduce OpenCV's and albumentations' arithmetic, for papers whose authors read images that way.

OpenCV's bilinear resize is not antialiased: it looks at two pixels of a side whatever the scale, so a shrunk image
keeps (and aliases) high frequencies that Pillow's resize averages away. On uint8 it works in fixed point with 11 bits
of weight. The arithmetic is written out here, so that serving needs no OpenCV and every platform gives the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from forgery_det.transforms.preprocess import CenterCrop, ImageArray

_WEIGHT_BITS = 11


@dataclass(frozen=True, slots=True)
class ResizeOpenCV:
    """Resize to `height_px` x `width_px` as `cv2.resize` with INTER_LINEAR does; the aspect is not kept."""

    height_px: int
    width_px: int
    kind: ClassVar[str] = "resize_opencv"

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the resized image."""
        height, width = image_HWC.shape[:2]
        if (height, width) == (self.height_px, self.width_px):
            return image_HWC
        left_x, right_x, weight_x = _taps(width, self.width_px, whole_at_edges=True)
        top_y, bottom_y, weight_y = _taps(height, self.height_px, whole_at_edges=False)

        def rows(index_y: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
            picked = image_HWC[index_y].astype(np.int64)
            between: npt.NDArray[np.int64] = (
                picked[:, left_x] * weight_x[0][:, None] + picked[:, right_x] * weight_x[1][:, None]
            )
            return between

        # The order of shifts is OpenCV's: 4 bits off the rows, 16 off the products, 2 off the rounded sum.
        upper = ((rows(top_y) >> 4) * weight_y[0][:, None, None]) >> 16
        lower = ((rows(bottom_y) >> 4) * weight_y[1][:, None, None]) >> 16
        resized_HWC: ImageArray = ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)
        return resized_HWC


@dataclass(frozen=True, slots=True)
class CenterCropFloor:
    """Cut the centre, any odd pixel left at the bottom or right (albumentations; torchvision rounds half to even).

    A smaller image is padded with black first, as `CenterCrop` does.
    """

    height_px: int
    width_px: int
    kind: ClassVar[str] = "center_crop_floor"

    def __call__(self, image_HWC: ImageArray) -> ImageArray:
        """Return the centre."""
        height, width = max(image_HWC.shape[0], self.height_px), max(image_HWC.shape[1], self.width_px)
        image_HWC = CenterCrop(height, width)(image_HWC)
        top, left = (height - self.height_px) // 2, (width - self.width_px) // 2
        return image_HWC[top : top + self.height_px, left : left + self.width_px]


def _taps(
    size_in: int, size_out: int, *, whole_at_edges: bool
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return the first and the second neighbour of each output pixel, and both fixed-point weights.

    Beyond the edges both neighbours are the edge pixel. OpenCV then gives the first one all the weight along a row, but
    splits it along a column, where the two rounded products can lose one grey level.
    """
    # OpenCV computes the scale in double and the position in float32.
    scale = 1.0 / (size_out / size_in)
    position = ((np.arange(size_out) + 0.5) * scale - 0.5).astype(np.float32)
    left = np.floor(position).astype(np.intp)
    fraction = position - left.astype(np.float32)
    if whole_at_edges:
        fraction[(left < 0) | (left >= size_in - 1)] = 0
    # Each weight is rounded by itself, so a pair may add up to one step more or less than the whole.
    weight = np.rint(np.stack([np.float32(1) - fraction, fraction]) * np.float32(1 << _WEIGHT_BITS)).astype(np.int64)
    return left.clip(0, size_in - 1), (left + 1).clip(0, size_in - 1), weight
