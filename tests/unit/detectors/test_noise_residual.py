from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d

from forgery_det.core.errors import ConfigError
from forgery_det.detectors import create_detector
from forgery_det.detectors.noise_residual import ConstrainedConv
from forgery_det.detectors.srm import srm_filters

TINY = {"crop_px": 16, "n_constrained": 2, "channels": (4,)}


def test_fixed_residuals_are_clipped_correlations_of_each_colour() -> None:
    image = np.random.default_rng(0).integers(100, 110, (3, 12, 12)).astype(np.float64)
    detector = create_detector("noise_residual", **TINY)
    with torch.no_grad():
        residuals = detector.residuals(torch.from_numpy(image / 255).float()[None])[0]
    assert residuals.shape == (3 * 30 + 2, 12, 12)
    filters = srm_filters()[:, 0].double().numpy()
    for colour in range(3):
        mirrored = np.pad(image[colour], 2, mode="reflect")
        for k in (0, 9, 15, 21, 26, 29):
            expected = np.clip(correlate2d(mirrored, filters[k], mode="valid"), -3, 3)
            np.testing.assert_allclose(residuals[30 * colour + k].numpy(), expected, atol=1e-3)


def test_constrained_kernels_keep_their_constraint_whatever_is_learnt() -> None:
    layer = ConstrainedConv(3, 4)
    for step in range(3):
        with torch.no_grad():
            layer.beside.add_(torch.randn_like(layer.beside) * 10**step)
        kernels = layer.kernels()
        assert (kernels[..., 2, 2] == -1).all()
        torch.testing.assert_close(kernels.sum(dim=(2, 3)), torch.zeros(4, 3), rtol=0, atol=1e-3)


def test_a_constrained_filter_is_blind_to_flat_images_and_to_brightness() -> None:
    layer = ConstrainedConv(3, 2)
    image = torch.rand(1, 3, 10, 10) * 255
    with torch.no_grad():
        torch.testing.assert_close(layer(image + 40), layer(image), rtol=0, atol=1e-2)
        assert layer(torch.full((1, 3, 10, 10), 200.0)).abs().max() < 1e-2


def test_filters_kill_polynomials_up_to_their_order() -> None:
    """First-order filters remove constants, second-order ones also slopes, third-order ones also parabolas."""
    y, x = np.mgrid[:9, :9].astype(np.float64)
    filters = srm_filters()[:, 0].double().numpy()
    for kernels, surface in ((filters, 0 * x + 5), (filters[8:12], 2 * x - y), (filters[12:20], x**2 + 3 * x * y)):
        for kernel in kernels:
            np.testing.assert_allclose(correlate2d(surface, kernel, mode="valid"), 0, atol=1e-5)
    assert np.abs(correlate2d(x, filters[4], mode="valid")).min() > 0.5


def test_without_constrained_filters_the_fixed_ones_remain() -> None:
    detector = create_detector("noise_residual", crop_px=16, n_constrained=0, channels=(4,))
    assert detector.constrained is None
    assert torch.isfinite(detector(torch.rand(2, 3, 16, 16))).all()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="Expected `n_constrained` of at least 0, `truncation` above 0"):
        create_detector("noise_residual", truncation=0.0)
