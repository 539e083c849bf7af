"""Cut square crops out of a photograph, always the same ones.

One large photograph gives several real images; they share one `source_id`, so they never straddle a split. The rule:

1. The short side is brought down to `short_side_px` (Lanczos). A smaller image keeps its size: nothing is ever
   enlarged.
2. Without `size_px` the whole image is the one crop.
3. Otherwise the crops sit on an even grid that spans the image from edge to edge. Of all grids with at least `count`
   cells the one with the least overlap is taken, then the one with the fewest spare cells, then the squarest.
4. Neighbours may share at most `MAX_OVERLAP` of their side. If the image has no room for `count` crops under that
   limit, there are fewer; if it is smaller than one crop, there are none.
"""

from __future__ import annotations

from math import floor

import numpy as np

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.recipe import CropPolicy
from forgery_det.transforms.preprocess import ImageArray, resize

MAX_OVERLAP = 0.25
"""Largest share of a crop's side that it may share with its neighbour."""


def crops(image_HWC: ImageArray, policy: CropPolicy) -> tuple[ImageArray, ...]:
    """Return the crops of one image in reading order, at most `policy.count` of them.

    Args:
        image_HWC: Decoded image, uint8 RGB.
        policy: How many crops, how large, and the short side before cutting.

    Raises:
        ConfigError: A number of the policy is not positive, or several crops are asked for without a size.

    Example:
        >>> photo = np.zeros((90, 120, 3), np.uint8)
        >>> [crop.shape for crop in crops(photo, CropPolicy(count=2, size_px=60))]
        [(60, 60, 3), (60, 60, 3)]
        >>> len(crops(photo, CropPolicy(count=9, size_px=60)))
        2
    """
    _check(policy)
    image_HWC = _shrink(image_HWC, policy.short_side_px)
    if policy.size_px is None:
        return (image_HWC,)
    size = policy.size_px
    corners = crop_corners(image_HWC.shape[0], image_HWC.shape[1], size, policy.count)
    return tuple(np.ascontiguousarray(image_HWC[y : y + size, x : x + size]) for y, x in corners)


def crop_corners(height_px: int, width_px: int, size_px: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return the upper left corners `(y, x)` of at most `count` squares, in reading order.

    Example:
        >>> crop_corners(100, 260, 100, 2)
        ((0, 0), (0, 160))
        >>> crop_corners(99, 260, 100, 2)
        ()
    """
    most_rows, most_columns = _most(height_px, size_px), _most(width_px, size_px)
    if not most_rows or not most_columns:
        return ()
    count = min(count, most_rows * most_columns)
    rows, columns = min(
        ((r, c) for r in range(1, most_rows + 1) for c in range(1, most_columns + 1) if r * c >= count),
        key=lambda grid: (
            max(_overlap_px(height_px, size_px, grid[0]), _overlap_px(width_px, size_px, grid[1])),
            grid[0] * grid[1],
            abs(grid[0] - grid[1]),
            grid,
        ),
    )
    top, left = _starts(height_px, size_px, rows), _starts(width_px, size_px, columns)
    cells = [(y, x) for y in top for x in left]
    return tuple(cells[(2 * index + 1) * len(cells) // (2 * count)] for index in range(count))


def _check(policy: CropPolicy) -> None:
    for name in ("count", "size_px", "short_side_px"):
        value = getattr(policy, name)
        if value is not None and value < 1:
            raise ConfigError(f"Expected `{name}` of at least 1, got {value} (crop of the recipe).")
    if policy.size_px is None and policy.count > 1:
        raise ConfigError(
            f"Expected `size_px` where several crops are asked for, got none with count {policy.count} "
            "(crop of the recipe)."
        )


def _shrink(image_HWC: ImageArray, short_side_px: int | None) -> ImageArray:
    height, width = image_HWC.shape[:2]
    short = min(height, width)
    if short_side_px is None or short <= short_side_px:
        return image_HWC
    scale = short_side_px / short
    return resize(image_HWC, max(1, round(width * scale)), max(1, round(height * scale)), "lanczos")


def _most(length_px: int, size_px: int) -> int:
    if length_px < size_px:
        return 0
    # The epsilon keeps an exact fit: 3 crops of 100 px at 75 px steps need 250 px, whatever 0.75 is in binary.
    return 1 + floor((length_px - size_px) / ((1 - MAX_OVERLAP) * size_px) + 1e-9)


def _overlap_px(length_px: int, size_px: int, n: int) -> float:
    return 0.0 if n == 1 else max(0.0, size_px - (length_px - size_px) / (n - 1))


def _starts(length_px: int, size_px: int, n: int) -> list[int]:
    room = length_px - size_px
    if n == 1:
        return [room // 2]
    return [index * room // (n - 1) for index in range(n)]
