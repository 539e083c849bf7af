from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.detectors import create_detector
from forgery_det.detectors.power_spectrum import frequency_radius


def by_definition(image_HWC: np.ndarray) -> np.ndarray:
    """The discrete Fourier sum of each frequency, and the mean over each ring, term by term."""
    side = len(image_HWC)
    grey = image_HWC @ np.array([0.299, 0.587, 0.114]) / 255
    phase = np.exp(-2j * np.pi * np.outer(np.arange(side), np.arange(side)) / side)
    rings: dict[int, list[float]] = {}
    for v in range(side):
        for u in range(side):
            value = (np.outer(phase[v], phase[u]) * grey).sum()
            down, right = (min(k, side - k) for k in (v, u))
            radius = round(math.hypot(down, right))
            rings.setdefault(radius, []).append(math.log(abs(value) ** 2 / side**2 + 1 / 255**2 / 12))
    return np.array([np.mean(rings[radius]) for radius in sorted(rings)])


def test_features_are_the_mean_log_power_of_each_ring() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    detector = create_detector("power_spectrum", crop_px=8)
    feature = detector.features(torch.from_numpy(image).permute(2, 0, 1)[None] / 255.0)[0]
    np.testing.assert_allclose(feature.numpy(), by_definition(image), rtol=1e-4, atol=1e-4)


def test_a_wave_stands_at_its_frequency() -> None:
    x = np.arange(64)
    wave = 0.5 + 0.4 * np.cos(2 * np.pi * 12 * x / 64)
    image = torch.from_numpy(np.broadcast_to(wave, (3, 64, 64)).astype(np.float32).copy())[None]
    feature = create_detector("power_spectrum", crop_px=64).features(image)[0]
    assert feature[1:].argmax() + 1 == 12


def test_white_noise_is_flat_and_a_flat_image_is_at_the_floor_of_rounding() -> None:
    detector = create_detector("power_spectrum", crop_px=64)
    noise = 0.5 + 0.1 * torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(8, 3, 64, 64)
    feature = detector.features(noise).mean(dim=0)[2:]
    assert feature.max() - feature.min() < 1.0
    flat = detector.features(torch.full((1, 3, 64, 64), 0.5))[0, 1:]
    torch.testing.assert_close(flat, torch.full_like(flat, math.log(1 / 255**2 / 12)), rtol=0, atol=1e-3)


def test_every_frequency_counts_once() -> None:
    radius = frequency_radius(10)
    assert radius.shape == (10, 10)
    assert radius.max() == round(math.hypot(5, 5))
    assert torch.bincount(radius.flatten()).min() > 0


def test_logistic_regression_separates_smooth_from_rough() -> None:
    detector = create_detector("power_spectrum", crop_px=16)
    generator = torch.Generator().manual_seed(3)
    rough = torch.rand(20, 3, 16, 16, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(rough, 3, stride=1, padding=1)
    features = detector.features(torch.cat([rough, smooth]))
    label = torch.cat([torch.ones(20), torch.zeros(20)])
    detector.fit_feature_scaling(features)
    optimizer = torch.optim.Adam(detector.trainable_parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(detector.head_logit(features), label).backward()
        optimizer.step()
    assert ((detector.head_logit(features) > 0) == (label == 1)).all()


def test_the_crop_has_a_least_size() -> None:
    with pytest.raises(ConfigError, match="Expected `crop_px` of at least 8, got 4"):
        create_detector("power_spectrum", crop_px=4)
