"""Perturbations that move pixels without computing new ones: crops, flips, quarter turns.

A crop keeps round(share * side) of each side, at least 1 px. Severities of `rot90` are different, not stronger:
1, 2 and 3 quarter turns counterclockwise.
"""

from __future__ import annotations

import numpy as np

from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.preprocess import ImageArray

SHARES = ({"share": 0.95}, {"share": 0.9}, {"share": 0.75}, {"share": 0.5}, {"share": 0.25})


def _crop_centre(image_HWC: ImageArray, rng: np.random.Generator, share: float) -> ImageArray:  # noqa: ARG001
    height, width = _kept(image_HWC, share)
    top, left = (image_HWC.shape[0] - height) // 2, (image_HWC.shape[1] - width) // 2
    return image_HWC[top : top + height, left : left + width]


def _crop_random(image_HWC: ImageArray, rng: np.random.Generator, share: float) -> ImageArray:
    height, width = _kept(image_HWC, share)
    top = int(rng.integers(image_HWC.shape[0] - height + 1))
    left = int(rng.integers(image_HWC.shape[1] - width + 1))
    return image_HWC[top : top + height, left : left + width]


def _kept(image_HWC: ImageArray, share: float) -> tuple[int, int]:
    height, width = image_HWC.shape[:2]
    return max(1, round(height * share)), max(1, round(width * share))


def _hflip(image_HWC: ImageArray, rng: np.random.Generator) -> ImageArray:  # noqa: ARG001 - one signature for all
    return image_HWC[:, ::-1]


def _vflip(image_HWC: ImageArray, rng: np.random.Generator) -> ImageArray:  # noqa: ARG001
    return image_HWC[::-1]


def _rot90(image_HWC: ImageArray, rng: np.random.Generator, quarter_turns: int) -> ImageArray:  # noqa: ARG001
    return np.rot90(image_HWC, quarter_turns)


CROP_CENTRE = Perturbation("crop_centre", "geometry", "the middle is kept", SHARES, _crop_centre)
CROP_RANDOM = Perturbation("crop_random", "geometry", "a part at a random place is kept", SHARES, _crop_random)
HFLIP = Perturbation("hflip", "geometry", "left and right exchanged", ({},), _hflip)
VFLIP = Perturbation("vflip", "geometry", "top and bottom exchanged", ({},), _vflip)
ROT90 = Perturbation(
    "rot90",
    "geometry",
    "quarter turns counterclockwise; severities differ, they do not grow",
    ({"quarter_turns": 1}, {"quarter_turns": 2}, {"quarter_turns": 3}),
    _rot90,
)
