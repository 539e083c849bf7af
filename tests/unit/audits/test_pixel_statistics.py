from __future__ import annotations

import numpy as np
import pytest

from forgery_det.audits.pixel_statistics import N_RINGS, N_STATISTICS, OFFSETS, pixel_statistics
from synth.planted import picture


def test_a_wave_lies_in_the_ring_of_its_frequency() -> None:
    x = np.arange(64)
    wave = 128 + 60 * np.sin(2 * np.pi * x * 8 / 32)
    image = np.repeat(np.repeat(wave[None, :, None], 64, 0), 3, 2).astype(np.uint8)
    spectrum = pixel_statistics(image)[:N_RINGS]
    assert int(np.argmax(spectrum)) in (7, 8)


def test_size_does_not_decide() -> None:
    large, small = picture(0, 128, 128), picture(1, 40, 48)
    assert pixel_statistics(large).shape == pixel_statistics(small).shape == (N_STATISTICS,)
    assert pixel_statistics(picture(2, 5, 7)).shape == (N_STATISTICS,)


def test_numbers_are_finite_on_a_flat_image() -> None:
    assert np.isfinite(pixel_statistics(np.full((64, 64, 3), 7, np.uint8))).all()


def test_correlation_tells_the_direction_of_stripes() -> None:
    stripes = np.where(np.arange(64) // 2 % 2, 90, 160).astype(np.uint8)
    upright = np.repeat(np.repeat(stripes[None, :, None], 64, 0), 3, 2)
    first = N_RINGS + 6
    across, along = OFFSETS.index((0, 2)), OFFSETS.index((2, 0))
    found, turned = pixel_statistics(upright), pixel_statistics(np.ascontiguousarray(upright.swapaxes(0, 1)))
    assert found[first + across] == pytest.approx(turned[first + along])
    assert found[first + across] < -0.5 < 0.9 < found[first + along]
