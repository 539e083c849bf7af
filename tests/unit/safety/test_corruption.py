from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.safety.corruption import (
    LIMITS,
    CorruptionDetector,
    _repetition,
    measure_picture,
    plant,
    validate,
)
from synth.safety_plan import context, subject


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from sklearn.datasets import load_sample_images

    return np.ascontiguousarray(load_sample_images().images[0][100:356, 100:356])


def broken(image_HWC: np.ndarray) -> list[str]:
    return [name for name, value in measure_picture(image_HWC).items() if value > LIMITS[name]]


def test_each_planted_failure_breaks_the_rule_made_for_it(photo: np.ndarray) -> None:
    failures = plant(photo, np.random.default_rng(0))
    assert broken(photo) == []
    assert {name: broken(image) for name, image in failures.items()} == {
        "flat": ["blank"],
        "blank_with_a_speck": ["blank"],
        "noise": ["noise"],
        "tokens": ["garbled"],
        "tiled": ["tiled"],
        "shuffled": ["garbled"],
        "drowned": ["noise"],
    }


def test_failures_are_found_at_other_sizes_and_after_a_codec(photo: np.ndarray) -> None:
    large = np.kron(photo, np.ones((2, 2, 1), np.uint8))
    for image in (large, np.ascontiguousarray(photo[:96, :128])):
        for failure in plant(image, np.random.default_rng(1)).values():
            assert broken(decode_image(encode_image(failure, "jpeg", 85)).image_HWC)


def test_blocks_of_a_codec_are_not_garbled(photo: np.ndarray) -> None:
    # A smooth picture at quality 20: the jump at block borders is a large multiple of the jump elsewhere.
    smooth = np.clip(np.stack([ndimage.gaussian_filter(photo[..., c], 6.0) for c in range(3)], -1), 0, 255)
    blocked = decode_image(encode_image(smooth.astype(np.uint8), "jpeg", 20)).image_HWC
    jump = np.abs(np.diff(blocked.mean(axis=2), axis=1)).mean(axis=0)
    on_line = np.arange(1, len(jump) + 1) % 8 == 0
    assert np.median(jump[on_line]) > 2.0 * np.median(jump[~on_line])
    assert broken(blocked) == []


def test_repetition_is_the_highest_correlation_over_shifts() -> None:
    """The sums over all shifts at once are those that one would take shift by shift."""
    grey_HW = np.random.default_rng(3).normal(0, 20, (40, 56)).cumsum(axis=1)
    detail_HW = grey_HW - ndimage.uniform_filter(grey_HW, 9, mode="nearest")
    slow = []
    for lines in (detail_HW, detail_HW.T):
        for shift in range(max(4, lines.shape[1] // 8), lines.shape[1] // 2 + 1):
            one, other = lines[:, shift:].ravel(), lines[:, :-shift].ravel()
            slow.append(np.corrcoef(one, other)[0, 1])
    assert _repetition(grey_HW) == pytest.approx(max(slow), abs=1e-9)


def test_small_and_thin_pictures_are_measured() -> None:
    for shape in ((1, 1, 3), (3, 200, 3), (7, 9, 3)):
        values = measure_picture(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        assert all(np.isfinite(value) for value in values.values())


def test_the_judge_says_which_rule_was_broken(photo: np.ndarray, tmp_path: Path) -> None:
    judge = CorruptionDetector(None, context(tmp_path))
    good = judge.judge(subject(image=encode_image(photo, "png", None)))
    assert (good.verdict, good.raw["broken"]) == ("safe", [])
    assert good.score is not None
    assert good.score < 1.0
    noise = plant(photo, np.random.default_rng(0))["noise"]
    bad = judge.judge(subject(image=encode_image(noise, "png", None)))
    assert (bad.verdict, bad.raw["broken"]) == ("corrupted", ["noise"])
    assert bad.score is not None
    assert bad.score > 1.0
    assert judge.judge(subject(image=b"no image")).verdict == "corrupted"


def test_the_error_is_measured_on_the_users_pictures(photo: np.ndarray, tmp_path: Path) -> None:
    for index in range(2):
        part = photo[index * 96 : index * 96 + 96, :96]
        (tmp_path / f"{index}.png").write_bytes(encode_image(np.ascontiguousarray(part), "png", None))
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    (tmp_path / "z.png").write_bytes(encode_image(noise, "png", None))  # not as good as its user thinks
    found = validate(tmp_path)
    assert (found.hits, found.n_positive, found.passes, found.n_negative) == (21, 21, 2, 3)
    empty = tmp_path / "empty"
    with pytest.raises(ConfigError, match="folder of good pictures"):
        validate(empty)
    empty.mkdir()
    with pytest.raises(ConfigError, match="got none in"):
        validate(empty)


@pytest.mark.slow
def test_the_shipped_photographs_bear_the_detector_out() -> None:
    found = validate(None, seed=3)
    assert found.n_negative == 30
    assert found.n_positive == 210
    assert found.sensitivity > 0.95
    assert found.specificity > 0.95
