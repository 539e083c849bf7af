"""Masks of inpainting, drawn by a stated rule from a seed: white is painted anew, black stays.

- `box`: one rectangle. Its area is a share of the image drawn from `share`, its aspect is drawn log-uniformly from
  [1/2, 2], its place uniformly from all that keep it inside.
- `blob`: one region without corners, `{p : r(angle of p) >= |p - c|}`, with r a constant plus three seeded cosines; the
  scale is set so that the share of white pixels is the share that was drawn, to a pixel's rounding.
- `none`: everything stays, which re-synthesises nothing but what the autoencoder changes (the self-conditioned fakes of
  B-Free, arXiv 2412.17671, are made so). `all`: everything is painted anew.

An image's mask depends on the rule, the seed and the image's size alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MaskPolicy:
    """Where the masks of a generating source come from.

    Args:
        rule: `box`, `blob`, `none`, `all`, or `source`: an image of another source for each input.
        share: Smallest and largest share of the image that is painted anew, for `box` and `blob`.
        images: Id of the source of masks, for `source`: the mask of an input has its key, whatever the suffix. Grey
            values from 128 on are white.
    """

    rule: str = "blob"
    share: tuple[float, ...] = (0.1, 0.4)
    images: str | None = None

    def __post_init__(self) -> None:
        known = (*_RULES, "source")
        if self.rule not in known:
            raise ConfigError(f"Unknown mask rule {self.rule!r}: {did_you_mean(self.rule, known)}")
        if len(self.share) != 2 or not 0 < self.share[0] <= self.share[1] <= 0.9:
            raise ConfigError(f"Expected `share` as two numbers in (0, 0.9], the smaller first, got {self.share}")
        if (self.rule == "source") != (self.images is not None):
            raise ConfigError(f"Expected `images` with the rule 'source' alone, got {self.images!r} with {self.rule!r}")


def draw_mask(height_px: int, width_px: int, policy: MaskPolicy, seed: int) -> Mask:
    """Return a mask by the policy's rule.

    Args:
        height_px: Height of the image.
        width_px: Width of the image.
        policy: The rule, other than `source`.
        seed: Equal seeds give equal masks.

    Returns:
        Shape (height, width), True where the image is painted anew.

    Example:
        >>> mask = draw_mask(40, 60, MaskPolicy("box", (0.3, 0.3)), 3)
        >>> mask.shape, round(float(mask.mean()), 1)
        ((40, 60), 0.3)
    """
    rng = np.random.default_rng([seed, 0x6D61736B])
    return _RULES[policy.rule](height_px, width_px, rng.uniform(policy.share[0], policy.share[1]), rng)


def _box(height: int, width: int, share: float, rng: np.random.Generator) -> Mask:
    aspect = 2.0 ** rng.uniform(-1, 1)
    rows = int(np.clip(round(np.sqrt(share * height * width / aspect)), 1, height))
    columns = int(np.clip(round(share * height * width / rows), 1, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    mask = np.zeros((height, width), bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


def _blob(height: int, width: int, share: float, rng: np.random.Generator) -> Mask:
    y, x = np.mgrid[0:height, 0:width]
    dy, dx = y - height * rng.uniform(0.3, 0.7), x - width * rng.uniform(0.3, 0.7)
    angle, radius = np.arctan2(dy, dx), np.ones((height, width))
    for harmonic in (2, 3, 5):
        radius += rng.uniform(0, 0.4) / harmonic * 2 * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    distance = np.hypot(dy, dx) / np.maximum(radius, 0.2)
    # The n nearest pixels in this distance: the share is exact, and ties are broken by place.
    count = max(1, round(share * height * width))
    mask = np.zeros(height * width, bool)
    mask[np.argsort(distance, axis=None, kind="stable")[:count]] = True
    return mask.reshape(height, width)


def _none(height: int, width: int, _share: float, _rng: np.random.Generator) -> Mask:
    return np.zeros((height, width), bool)


def _all(height: int, width: int, _share: float, _rng: np.random.Generator) -> Mask:
    return np.ones((height, width), bool)


_RULES: dict[str, Callable[[int, int, float, np.random.Generator], Mask]] = {
    "all": _all,
    "blob": _blob,
    "box": _box,
    "none": _none,
}
