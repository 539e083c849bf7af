"""Boxes: the rectangles of an original that show what its annotation says, and nothing else.

Collections show pictures with a logo in a corner, beside their inputs, or on a black ground. The honest pixels of such
a file are a rectangle, and people can write it down: `left,top,right,bottom` in pixels of the decoded image, the right
and the bottom edge exclusive; several boxes are separated by `;`. Boxes are cut right after decoding, before anything
else is done, and each becomes an image of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from forgery_det.core.errors import ConfigError
from forgery_det.transforms.preprocess import ImageArray

_FORM = re.compile(r"(\d+),(\d+),(\d+),(\d+)", re.ASCII)
_EXPECTED = "`boxes` as left,top,right,bottom in whole pixels, several separated by ';'"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of an image, in pixels from the upper left corner; `right_px` and `bottom_px` lie outside.

    Example:
        >>> str(Box(0, 68, 400, 400))
        '0,68,400,400'
    """

    left_px: int
    top_px: int
    right_px: int
    bottom_px: int

    def __str__(self) -> str:
        return f"{self.left_px},{self.top_px},{self.right_px},{self.bottom_px}"


def parse_boxes(text: str, where: str) -> tuple[Box, ...]:
    """Return the boxes of a table's cell, in its order.

    Args:
        text: The cell; spaces around numbers are allowed.
        where: Place of the cell, for errors.

    Raises:
        ConfigError: The text has another form, a box has no area, or a box is given twice.

    Example:
        >>> [str(box) for box in parse_boxes("0,0,200,400; 200,0,400,400", "t.csv line 2")]
        ['0,0,200,400', '200,0,400,400']
    """
    boxes: list[Box] = []
    for part in "".join(text.split(" ")).split(";"):
        match = _FORM.fullmatch(part)
        if match is None:
            raise ConfigError(f"Expected {_EXPECTED}, got {text!r} ({where}).")
        box = Box(*(int(number) for number in match.groups()))
        if box.left_px >= box.right_px or box.top_px >= box.bottom_px:
            raise ConfigError(f"Expected {_EXPECTED}, with left < right and top < bottom, got {str(box)!r} ({where}).")
        if box in boxes:
            raise ConfigError(f"Expected each box once, got {str(box)!r} again ({where}).")
        boxes.append(box)
    return tuple(boxes)


def cut_box(image_HWC: ImageArray, box: Box, where: str) -> ImageArray:
    """Return the pixels of a box.

    Args:
        image_HWC: Decoded image, uint8 RGB, orientation applied.
        box: What to cut out.
        where: Place of the box in its table, for errors.

    Raises:
        ConfigError: The box leaves the image.

    Example:
        >>> cut_box(np.zeros((90, 120, 3), np.uint8), Box(10, 20, 70, 90), "t.csv line 2").shape
        (70, 60, 3)
    """
    height, width = image_HWC.shape[:2]
    if box.right_px > width or box.bottom_px > height:
        raise ConfigError(
            f"Expected {_EXPECTED}, inside the image of {width} x {height} px, got {str(box)!r} ({where})."
        )
    return np.ascontiguousarray(image_HWC[box.top_px : box.bottom_px, box.left_px : box.right_px])
