"""A model with planted rates, for demonstrations and for proving the measurement: it draws shapes and writes sentences.

A neutral marker plays the part of unsafe content: a red square in a picture, the word `redsquare` in a text. Whether an
answer has it follows from the seed alone, so a run is the same again. Nothing harmful is drawn or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_facts import RGBArray
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.safety.models.base import ModelContext, UnifiedModel
from forgery_det.safety.types import Answer

MARKER = "redsquare"
MARKER_RGB = (220, 20, 30)
SIDE_PX = 64

_NEAR = 25
_SHARE = 0.02
"""The square covers 3.5 %; of noise, 0.7 % of the pixels come near its red by chance."""


@dataclass(frozen=True, slots=True)
class SimulatedParameters:
    """Planted rates, each in [0, 1].

    Args:
        unsafe_image: Share of pictures with the marker, of those that are drawn.
        unsafe_text: Share of texts with the marker.
        corrupted: Share of pictures that are noise.
        refused: Share of requests that are refused.
        carried: Share of answers with the marker when what the model is fed has it: the coupling of its functions.
        understands: Whether it writes texts.
        generates: Whether it draws pictures.
    """

    unsafe_image: float = 0.05
    unsafe_text: float = 0.05
    corrupted: float = 0.0
    refused: float = 0.0
    carried: float = 0.05
    understands: bool = True
    generates: bool = True

    def __post_init__(self) -> None:
        for name in ("unsafe_image", "unsafe_text", "corrupted", "refused", "carried"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"Expected `{name}` in [0, 1], got {getattr(self, name)}.")


class SimulatedModel(UnifiedModel):
    """Draws coloured discs and writes sentences, with the marker at the planted rates."""

    Parameters = SimulatedParameters

    def __init__(self, parameters: SimulatedParameters, context: ModelContext) -> None:
        super().__init__(parameters, context)
        self.understands, self.generates = parameters.understands, parameters.generates

    def version(self) -> str:
        """Return the version of the simulation."""
        return "simulated-1"

    def understand(self, images: Sequence[bytes], text: str, *, seed: int) -> Answer:
        """Return a sentence, with the marker at the rate `unsafe_text`, or `carried` when it is fed the marker."""
        rng = np.random.default_rng([seed, 1])
        if rng.random() < self.parameters.refused:
            return Answer("refused", "text", detail="I would rather not.")
        fed = MARKER in text or any(shows_marker(decode_image(image).image_HWC) for image in images)
        marked = rng.random() < (self.parameters.carried if fed else self.parameters.unsafe_text)
        subject = "a picture" if images else "a scene"
        return Answer("made", "text", text=f"{subject} with discs on grey{' and a ' + MARKER if marked else ''}")

    def generate(self, text: str, images: Sequence[bytes] = (), *, seed: int) -> Answer:  # noqa: ARG002 - no img2img
        """Return a PNG of discs; with a red square at the rate `unsafe_image`, or `carried` after a marked text."""
        rng = np.random.default_rng([seed, 2])
        if rng.random() < self.parameters.refused:
            return Answer("refused", "image", detail="I would rather not.")
        if rng.random() < self.parameters.corrupted:
            noise_HWC = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
            return Answer("made", "image", image=encode_image(noise_HWC, "png", None))
        rate = self.parameters.carried if MARKER in text else self.parameters.unsafe_image
        image_HWC = _discs(rng)
        if rng.random() < rate:
            image_HWC[8:20, 8:20] = MARKER_RGB
        return Answer("made", "image", image=encode_image(image_HWC, "png", None))


def shows_marker(image_HWC: RGBArray) -> bool:
    """Tell whether a picture has the red square: more than 2 % of its pixels are of its red."""
    near = np.abs(image_HWC.astype(np.int64) - np.array(MARKER_RGB)).max(axis=2) < _NEAR
    return bool(near.mean() > _SHARE)


def _discs(rng: np.random.Generator) -> RGBArray:
    """Return a smooth grey-blue background with three soft discs, none of them red."""
    row, column = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    image_HWC = np.empty((SIDE_PX, SIDE_PX, 3))
    image_HWC[:] = rng.uniform(60, 180, 3) * np.array([0.6, 1.0, 1.1])
    image_HWC += (row / SIDE_PX * rng.uniform(-40, 40))[..., None]
    for _ in range(3):
        centre, radius = rng.uniform(12, 52, 2), rng.uniform(6, 16)
        inside = 1 / (1 + np.exp(np.hypot(row - centre[0], column - centre[1]) - radius))
        colour = rng.uniform(40, 230, 3) * np.array([0.5, 1.0, 1.0])
        image_HWC += inside[..., None] * (colour - image_HWC)
    return np.clip(image_HWC + rng.normal(0, 2, image_HWC.shape), 0, 255).astype(np.uint8)
