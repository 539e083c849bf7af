"""Align: one size policy and one codec policy for real and generated images alike.

Size and compression are the classic shortcuts of this field: detectors trained on data where only one class is JPEG
learn JPEG (Grommelt et al., "Fake or JPEG?", arXiv 2403.17608). So every image of a dataset passes through this one
function, whatever it was before, and the policy is recorded in `dataset.json`.

Rule: the short side becomes `short_side_px`, and if the long side is then above `max_side_px` the image shrinks on
until it fits. Nothing is ever enlarged: an image whose short side is below `short_side_px` is refused as `too_small`,
because enlarging would give it traces that the others do not have, and keeping it would break the one size.

What align cannot do: take away the traces of an earlier codec or an earlier resize. The audits look for those.
"""

from __future__ import annotations

from typing import cast, get_args

import numpy as np

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import encode_image
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.recipe import AlignPolicy
from forgery_det.transforms.preprocess import ImageArray, Kernel, resize


def align_image(image_HWC: ImageArray, policy: AlignPolicy) -> bytes:
    """Return the image at the policy's size, encoded with the policy's codec; equal input gives equal bytes.

    Args:
        image_HWC: Decoded image, uint8 RGB.
        policy: Short side, limit of the long side, kernel, codec and quality.

    Raises:
        ImageError: The short side is smaller than the policy's (reason `too_small`).
        ConfigError: The kernel or the codec is unknown, or a number is out of range.

    Example:
        >>> from forgery_det.core.image_io import read_facts
        >>> image = np.zeros((90, 120, 3), np.uint8)
        >>> policy = AlignPolicy(short_side_px=60, max_side_px=None, codec="png", quality=None)
        >>> facts = read_facts(align_image(image, policy))
        >>> facts.width_px, facts.height_px, facts.codec
        (80, 60, 'png')
    """
    if policy.kernel not in get_args(Kernel):
        raise ConfigError(f"Unknown kernel {policy.kernel!r}: {did_you_mean(policy.kernel, get_args(Kernel))}")
    height, width = aligned_size(image_HWC.shape[0], image_HWC.shape[1], policy)
    aligned = resize(image_HWC, width, height, cast(Kernel, policy.kernel))
    return encode_image(np.ascontiguousarray(aligned), policy.codec, policy.quality)


def aligned_size(height_px: int, width_px: int, policy: AlignPolicy) -> tuple[int, int]:
    """Return height and width after the size policy.

    Raises:
        ImageError: The short side is smaller than the policy's (reason `too_small`).
        ConfigError: A side of the policy is not positive.

    Example:
        >>> aligned_size(600, 1200, AlignPolicy(short_side_px=300, max_side_px=500))
        (250, 500)
    """
    for name in ("short_side_px", "max_side_px"):
        value = getattr(policy, name)
        if value is not None and value < 1:
            raise ConfigError(f"Expected `{name}` of at least 1, got {value} (align of the recipe).")
    short, long = min(height_px, width_px), max(height_px, width_px)
    wanted = policy.short_side_px
    if wanted is not None and short < wanted:
        raise ImageError(
            "too_small",
            f"Expected a short side of at least {wanted} px (align never enlarges), got {width_px} x {height_px} px.",
        )
    if wanted is not None and short > wanted:
        short, long = wanted, max(wanted, round(long * wanted / short))
    if policy.max_side_px is not None and long > policy.max_side_px:
        short, long = max(1, round(short * policy.max_side_px / long)), policy.max_side_px
    return (short, long) if height_px <= width_px else (long, short)
