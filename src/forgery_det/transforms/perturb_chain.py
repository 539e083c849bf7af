"""Chains that emulate how pictures travel: a screenshot, an upload to a feed, a forwarded message.

These are stand-ins. The parameters were chosen to be plausible; none was measured on a platform, and platforms change
theirs without notice. Read a result as "this chain", never as "this app".

    screenshot    scaled for a display (bilinear), the display's tone curve (gamma), saved as JPEG
    social_feed   long side limited (lanczos), JPEG twice: once by the sender's app, once by the server
    messenger     long side limited and JPEG, then the same again with tighter limits: a message that was forwarded

An image that is already within a limit is not resized, so on small images only the JPEG saves remain.
"""

from __future__ import annotations

import numpy as np

from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.perturb_codec import resave
from forgery_det.transforms.perturb_colour import gamma
from forgery_det.transforms.perturb_resize import limit_long_side, scale
from forgery_det.transforms.preprocess import ImageArray


def _screenshot(
    image_HWC: ImageArray,
    rng: np.random.Generator,  # noqa: ARG001 - one signature for all
    factor: float,
    exponent: float,
    quality: int,
) -> ImageArray:
    return resave(gamma(scale(image_HWC, factor, "bilinear"), exponent), "jpeg", quality)


def _social_feed(
    image_HWC: ImageArray,
    rng: np.random.Generator,  # noqa: ARG001
    long_side_px: int,
    qualities: tuple[int, int],
) -> ImageArray:
    image_HWC = limit_long_side(image_HWC, long_side_px, "lanczos")
    for quality in qualities:
        image_HWC = resave(image_HWC, "jpeg", quality)
    return image_HWC


def _messenger(
    image_HWC: ImageArray,
    rng: np.random.Generator,  # noqa: ARG001
    long_sides_px: tuple[int, int],
    qualities: tuple[int, int],
) -> ImageArray:
    for long_side_px, quality in zip(long_sides_px, qualities, strict=True):
        image_HWC = resave(limit_long_side(image_HWC, long_side_px, "bilinear"), "jpeg", quality)
    return image_HWC


SCREENSHOT = Perturbation(
    "screenshot",
    "chain",
    "emulated screenshot: scaled for a display, a slight tone curve, saved as JPEG",
    (
        {"factor": 0.9, "exponent": 1.02, "quality": 95},
        {"factor": 0.75, "exponent": 1.05, "quality": 90},
        {"factor": 0.5, "exponent": 1.1, "quality": 80},
    ),
    _screenshot,
)
SOCIAL_FEED = Perturbation(
    "social_feed",
    "chain",
    "emulated upload: long side limited, JPEG twice; stand-in parameters, no platform was measured",
    (
        {"long_side_px": 2048, "qualities": (90, 85)},
        {"long_side_px": 1600, "qualities": (85, 80)},
        {"long_side_px": 1080, "qualities": (80, 70)},
        {"long_side_px": 720, "qualities": (75, 60)},
    ),
    _social_feed,
)
MESSENGER = Perturbation(
    "messenger",
    "chain",
    "emulated forwarded message: limited and saved as JPEG, twice; stand-in parameters, no app was measured",
    (
        {"long_sides_px": (1600, 1280), "qualities": (85, 75)},
        {"long_sides_px": (1280, 960), "qualities": (80, 65)},
        {"long_sides_px": (960, 640), "qualities": (70, 50)},
    ),
    _messenger,
)
