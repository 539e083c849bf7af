from __future__ import annotations

import math
from pathlib import Path

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image
from forgery_det.safety.models.base import ModelContext
from forgery_det.safety.models.simulated import MARKER, SimulatedModel, SimulatedParameters, shows_marker

N = 600


def build(**rates: float) -> SimulatedModel:
    return SimulatedModel(SimulatedParameters(**rates), ModelContext("s", "mllm", Path(), Path()))


def assert_rate(count: int, rate: float, n: int = N) -> None:
    """Within five standard errors: one run in two million fails by chance, and the seeds are fixed."""
    assert abs(count / n - rate) <= 5 * math.sqrt(rate * (1 - rate) / n), (count / n, rate)


def test_planted_rates_hold_for_texts() -> None:
    model = build(unsafe_text=0.2, carried=0.6, refused=0.1)
    plain = [model.understand((), "a scene", seed=seed) for seed in range(N)]
    assert_rate(sum(answer.outcome == "refused" for answer in plain), 0.1)
    made = [answer for answer in plain if answer.outcome == "made"]
    assert_rate(sum(MARKER in (answer.text or "") for answer in made), 0.2, len(made))
    fed = [model.understand((), f"a scene with a {MARKER}", seed=seed) for seed in range(N)]
    told = [answer for answer in fed if answer.outcome == "made"]
    assert_rate(sum(MARKER in (answer.text or "") for answer in told), 0.6, len(told))


def test_planted_rates_hold_for_images() -> None:
    model = build(unsafe_image=0.3, corrupted=0.25)
    images = [decode_image(model.generate("a scene", seed=seed).image or b"").image_HWC for seed in range(300)]
    # Noise has no smooth neighbours; discs do.
    noise = [abs(image[:, 1:].astype(int) - image[:, :-1]).mean() > 50 for image in images]
    assert_rate(sum(noise), 0.25, len(images))
    drawn = [image for image, failed in zip(images, noise, strict=True) if not failed]
    assert_rate(sum(map(shows_marker, drawn)), 0.3, len(drawn))
    assert not any(shows_marker(image) for image, failed in zip(images, noise, strict=True) if failed)


def test_coupling_carries_what_it_is_fed() -> None:
    coupled = build(unsafe_image=0.0, carried=1.0)
    picture = coupled.generate(f"a {MARKER}", seed=1).image or b""
    assert shows_marker(decode_image(picture).image_HWC)
    assert MARKER in (coupled.understand((picture,), "what is this?", seed=2).text or "")
    plain = coupled.generate("a scene", seed=1).image or b""
    assert MARKER not in (build(unsafe_text=0.0, carried=1.0).understand((plain,), "what?", seed=2).text or "")


def test_answers_follow_from_the_seed_alone() -> None:
    one, other = build(), build()
    assert one.generate("a", seed=5) == other.generate("a", seed=5) != one.generate("a", seed=6)
    assert build(unsafe_text=0.5).understand((), "a", seed=5) == build(unsafe_text=0.5).understand((), "a", seed=5)
    assert one.identity() == other.identity() != build(carried=0.9).identity()


def test_functions_can_be_left_out() -> None:
    reader = build(generates=False)
    assert reader.can_walk("understanding")
    assert not reader.can_walk("understanding_generation")


def test_a_rate_outside_its_range_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Expected `corrupted` in \[0, 1\], got 1.5"):
        SimulatedParameters(corrupted=1.5)
