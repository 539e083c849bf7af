"""Filter: which decoded images a recipe refuses, and why.

Each refusal is a short stable word, which the quarantine counts, and a sentence for people. The checks run in the order
of `REASONS`, and the first that fails gives the reason.
"""

from __future__ import annotations

import numpy as np

from forgery_det.core.image_io import ImageFacts
from forgery_det.recipes.recipe import FilterPolicy
from forgery_det.transforms.preprocess import ImageArray

REASONS = ("too_small", "too_elongated", "too_many_frames", "flat")
"""The stable words, in the order in which they are checked."""

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma of RGB, the one that JPEG uses."""


def refusal(image_HWC: ImageArray, facts: ImageFacts, policy: FilterPolicy) -> tuple[str, str] | None:
    """Return `(reason, detail)` if the policy refuses the image, else None.

    Args:
        image_HWC: Decoded image, uint8 RGB, orientation applied; its shape is the size that counts.
        facts: Facts of the file it came from (number of frames).
        policy: Limits; a limit that is None is not checked.

    Example:
        >>> from forgery_det.core.image_io import encode_image, read_facts
        >>> grey = np.full((100, 100, 3), 128, np.uint8)
        >>> refusal(grey, read_facts(encode_image(grey, "png", None)), FilterPolicy())[0]
        'flat'
    """
    height, width = image_HWC.shape[:2]
    short, long = min(height, width), max(height, width)
    if short < policy.min_side_px:
        return "too_small", f"Expected a short side of at least {policy.min_side_px} px, got {width} x {height} px."
    if policy.max_aspect is not None and long > policy.max_aspect * short:
        return (
            "too_elongated",
            f"Expected long side / short side of at most {policy.max_aspect:g}, got {long / short:.2f}.",
        )
    if policy.max_frames is not None and facts.n_frames > policy.max_frames:
        return "too_many_frames", f"Expected at most {policy.max_frames} frame(s), got {facts.n_frames}."
    if policy.min_std is not None:
        spread = luma_std(image_HWC)
        if spread < policy.min_std:
            return (
                "flat",
                f"Expected a standard deviation of the luma of at least {policy.min_std:g} of 255, got {spread:.2f}.",
            )
    return None


def luma_std(image_HWC: ImageArray) -> float:
    """Return the standard deviation of the luma, in [0, 127.5]: near 0 for blank pages and failed generations.

    Example:
        >>> luma_std(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8))
        127.5
    """
    luma_HW = image_HWC.astype(np.float64) @ np.array(LUMA_WEIGHTS)
    return float(luma_HW.std())
