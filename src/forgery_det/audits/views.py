"""Is one picture a piece of another one? Views of an image, their hashes, and the proof by alignment.

A perceptual hash survives a resize and a re-encoding, not a crop: cutting off a tenth of each side changes about 13 of
its 64 bits. So each image is also hashed as `N_VIEWS` pieces of itself (two sizes, nine places each). A true crop lies
near one of those pieces, within a few bits. What is near is then proven: the piece is moved and scaled until its
correlation with the other picture is highest,

    r = max over (scale, x, y) of corr(piece(image, scale, x, y), other),      both 32 x 32 luma,

and only r of at least `MIN_CORRELATION` counts. Measured figures stand in `docs/audits.md`.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from forgery_det.metrics.inputs import FloatArray
from forgery_det.recipes.phash import HashArray, parse_hashes, phash
from forgery_det.transforms.preprocess import ImageArray

GRAY_PX = 96
"""Short side of the luma image from which all views are cut; a hash needs only 32."""
VIEW_PX = 32
MIN_SCALE = 0.75
"""Smallest piece, as a share of each side, that is looked for."""
MIN_CORRELATION = 0.93
_STEPS = (0.04, 0.02, 0.01)


class View(NamedTuple):
    """A piece of an image.

    Args:
        scale: Its sides as a share of the image's, in (0, 1].
        x: Place of the piece between the left (0) and the right end (1).
        y: The same from top to bottom.
    """

    scale: float
    x: float
    y: float


VIEWS = tuple(View(scale, x, y) for scale, x, y in product((0.93, 0.85), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0)))
N_VIEWS = len(VIEWS)
WHOLE = View(1.0, 0.5, 0.5)


def small_gray(image_HWC: ImageArray) -> ImageArray:
    """Return the luma of an image, its shorter side brought to at most `GRAY_PX`, [h, w]."""
    gray = Image.fromarray(image_HWC).convert("L")
    scale = GRAY_PX / min(gray.size)
    if scale < 1.0:
        width, height = (max(1, round(side * scale)) for side in gray.size)
        gray = gray.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(gray)


def cut(gray_HW: ImageArray, view: View) -> ImageArray:
    """Return a piece of a luma image, resized to `VIEW_PX` x `VIEW_PX`.

    Example:
        >>> cut(np.zeros((40, 50), np.uint8), VIEWS[0]).shape
        (32, 32)
    """
    height, width = gray_HW.shape
    left, top = width * (1 - view.scale) * view.x, height * (1 - view.scale) * view.y
    box = (left, top, left + width * view.scale, top + height * view.scale)
    return np.asarray(Image.fromarray(gray_HW).resize((VIEW_PX, VIEW_PX), Image.Resampling.LANCZOS, box=box))


def view_hashes(image_HWC: ImageArray) -> HashArray:
    """Return the perceptual hashes of all `VIEWS` of an image, uint64 [`N_VIEWS`]."""
    gray_HW = small_gray(image_HWC)
    return parse_hashes([phash(np.stack([cut(gray_HW, view)] * 3, axis=2)) for view in VIEWS])


def best_correlation(gray_HW: ImageArray, other_HW: ImageArray, start: View) -> float:
    """Return how well a piece of one image matches another whole image once it is aligned, in [-1, 1].

    Args:
        gray_HW: The image that is cut.
        other_HW: The image that may be a piece of it.
        start: Where to begin.
    """
    wanted = _standardised(cut(other_HW, WHOLE))
    best, view = _correlation(gray_HW, start, wanted), start
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for moved in _neighbours(view, step):
                found = _correlation(gray_HW, moved, wanted)
                if found > best + 1e-6:
                    best, view, improved = found, moved, True
    return best


def _neighbours(view: View, step: float) -> list[View]:
    # A step is a share of the whole image; `x` and `y` count in shares of the room that the piece leaves.
    room = max(1.0 - view.scale, step)
    moves = [(step, 0.0, 0.0), (-step, 0.0, 0.0)]
    moves += [(0.0, sign * step / room, 0.0) for sign in (1, -1)] + [(0.0, 0.0, sign * step / room) for sign in (1, -1)]
    return [
        View(
            float(np.clip(view.scale + s, MIN_SCALE, 1.0)),
            float(np.clip(view.x + x, 0, 1)),
            float(np.clip(view.y + y, 0, 1)),
        )
        for s, x, y in moves
    ]


def _correlation(gray_HW: ImageArray, view: View, wanted_N: FloatArray) -> float:
    return float(_standardised(cut(gray_HW, view)) @ wanted_N)


def _standardised(view_HW: ImageArray) -> npt.NDArray[np.float64]:
    values = view_HW.astype(np.float64).ravel()
    values -= values.mean()
    length = float(np.sqrt(values @ values))
    return values / length if length else values
