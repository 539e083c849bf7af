"""Perturbations of tone and colour, as a phone's editor makes them.

    gamma         v -> 255 (v / 255)^gamma                       above 1 is darker
    colour cast   c -> c 2^(strength d_c), d a random direction with sum 0 and length 1: a wrong white balance
    saturation    grey + factor (v - grey), grey the luma of ITU-R BT.601       Pillow's arithmetic
    contrast      mean + factor (v - mean), mean that of the luma               Pillow's arithmetic

Gamma and cast are lookup tables, so they are exact on every machine. An image without colour has no saturation to
change and comes back as it was.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from forgery_det.transforms.perturb import Perturbation
from forgery_det.transforms.perturb_filter import to_uint8
from forgery_det.transforms.preprocess import ImageArray

_LEVELS = np.arange(256) / 255.0


def gamma(image_HWC: ImageArray, exponent: float) -> ImageArray:
    """Apply `v -> 255 (v / 255)^exponent` to each sample.

    Example:
        >>> gamma(np.full((1, 1, 3), 128, np.uint8), 2.0)[0, 0].tolist()
        [64, 64, 64]
    """
    return to_uint8(255.0 * _LEVELS**exponent)[image_HWC]


def _gamma(image_HWC: ImageArray, rng: np.random.Generator, exponent: float) -> ImageArray:  # noqa: ARG001
    return gamma(image_HWC, exponent)


def _colour_cast(image_HWC: ImageArray, rng: np.random.Generator, strength: float) -> ImageArray:
    direction_C = rng.standard_normal(3)
    direction_C -= direction_C.mean()
    direction_C /= np.linalg.norm(direction_C)
    table_CL = to_uint8(255.0 * _LEVELS[None, :] * 2.0 ** (strength * direction_C[:, None]))
    return np.stack([table_CL[channel][image_HWC[..., channel]] for channel in range(3)], axis=-1)


def _saturation(image_HWC: ImageArray, rng: np.random.Generator, factor: float) -> ImageArray:  # noqa: ARG001
    return np.asarray(ImageEnhance.Color(Image.fromarray(image_HWC)).enhance(factor))


def _contrast(image_HWC: ImageArray, rng: np.random.Generator, factor: float) -> ImageArray:  # noqa: ARG001
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image_HWC)).enhance(factor))


def _named(name: str, *values: float) -> tuple[dict[str, float], ...]:
    return tuple({name: value} for value in values)


GAMMA_DARKER = Perturbation(
    "gamma_darker", "colour", "midtones darker by a gamma curve", _named("exponent", 1.2, 1.5, 2.0, 3.0), _gamma
)
GAMMA_LIGHTER = Perturbation(
    "gamma_lighter", "colour", "midtones lighter by a gamma curve", _named("exponent", 0.83, 0.67, 0.5, 0.33), _gamma
)
SATURATION_LESS = Perturbation(
    "saturation_less", "colour", "paler, to grey at the last", _named("factor", 0.75, 0.5, 0.25, 0.0), _saturation
)
SATURATION_MORE = Perturbation(
    "saturation_more", "colour", "more vivid", _named("factor", 1.25, 1.5, 2.0, 3.0), _saturation
)
CONTRAST_LESS = Perturbation(
    "contrast_less", "colour", "closer to the mean brightness", _named("factor", 0.8, 0.6, 0.4, 0.25), _contrast
)
COLOUR_CAST = Perturbation(
    "colour_cast",
    "colour",
    "a wrong white balance in a random direction; strength in stops",
    _named("strength", 0.1, 0.2, 0.4, 0.8),
    _colour_cast,
)
