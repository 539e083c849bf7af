from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.image_io import ImageFacts, read_facts
from forgery_det.recipes.filter import REASONS, luma_std, refusal
from forgery_det.recipes.recipe import FilterPolicy


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def facts_of(image: np.ndarray, frames: int = 1) -> ImageFacts:
    buffer = io.BytesIO()
    pictures = [Image.fromarray(np.roll(image, shift, axis=0)) for shift in range(frames)]
    pictures[0].save(buffer, "GIF" if frames > 1 else "PNG", save_all=frames > 1, append_images=pictures[1:])
    return read_facts(buffer.getvalue())


@pytest.mark.parametrize(
    ("image", "frames", "policy", "reason"),
    [
        (noise(63, 400), 1, FilterPolicy(), "too_small"),
        (noise(64, 400), 1, FilterPolicy(), None),
        (noise(64, 193), 1, FilterPolicy(max_aspect=3.0), "too_elongated"),
        (noise(193, 64), 1, FilterPolicy(max_aspect=3.0), "too_elongated"),
        (noise(64, 192), 1, FilterPolicy(max_aspect=3.0), None),
        (noise(80, 80), 3, FilterPolicy(), "too_many_frames"),
        (noise(80, 80), 3, FilterPolicy(max_frames=None), None),
        (np.full((80, 80, 3), 200, np.uint8), 1, FilterPolicy(), "flat"),
        (np.full((80, 80, 3), 200, np.uint8), 1, FilterPolicy(min_std=None), None),
        (np.zeros((10, 10, 3), np.uint8), 1, FilterPolicy(), "too_small"),
    ],
)
def test_refusal(image: np.ndarray, frames: int, policy: FilterPolicy, reason: str | None) -> None:
    found = refusal(image, facts_of(image, frames), policy)
    assert (found and found[0]) == reason
    assert reason is None or reason in REASONS


def test_details_say_expected_and_got() -> None:
    image = noise(50, 100)
    found = refusal(image, facts_of(image), FilterPolicy())
    assert found == ("too_small", "Expected a short side of at least 64 px, got 100 x 50 px.")


def test_luma_std_agrees_with_pillow() -> None:
    image = noise(64, 64)
    assert luma_std(image) == pytest.approx(float(np.asarray(Image.fromarray(image).convert("L")).std()), abs=0.02)
