"""Small cases of the equations behind the convolutional and trace-based detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.detectors import create_detector
from forgery_det.detectors.freqnet import high_pass
from forgery_det.detectors.gramnet import gram
from forgery_det.detectors.npr import neighbour_residual
from forgery_det.detectors.safe import diagonal_band
from forgery_det.detectors.spai import cut_patches, low_pass_mask, split_frequencies


def test_neighbour_residual_is_the_difference_from_nearest_down_and_up_sampling() -> None:
    x = torch.rand(2, 3, 8, 6)
    half = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="nearest")
    expected = x - torch.nn.functional.interpolate(half, scale_factor=2, mode="nearest")
    assert torch.equal(neighbour_residual(x), expected)


def test_diagonal_band_is_the_wavelet_transform() -> None:
    """Biorthogonal 1.3: its high-pass on the symmetric extension of rows and columns, every other coefficient kept."""
    x = np.random.default_rng(0).random((6, 8))
    high = np.array([0, 0, -1, 1, 0, 0]) / np.sqrt(2)

    def analyse(row: np.ndarray) -> np.ndarray:
        extended = np.pad(row, 5, mode="symmetric")
        return np.convolve(extended, high)[6 : 6 + (len(row) + 5) // 2 * 2 : 2]

    expected = np.apply_along_axis(analyse, 0, np.apply_along_axis(analyse, 1, x))
    ours = diagonal_band(torch.from_numpy(x)[None, None])[0, 0].numpy()
    assert ours.shape == (5, 6)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_high_pass_drops_the_low_square_and_negative_values() -> None:
    x = torch.randn(1, 2, 8, 12, dtype=torch.float32)
    spectrum = np.fft.fft2(x.numpy())
    low_rows = np.isin(np.fft.fftfreq(8, 1 / 8), (-2, -1, 0, 1))
    low_columns = np.isin(np.fft.fftfreq(12, 1 / 12), (-3, -2, -1, 0, 1, 2))
    spectrum[..., np.outer(low_rows, low_columns)] = 0
    expected = np.maximum(np.fft.ifft2(spectrum).real, 0)
    np.testing.assert_allclose(high_pass(x, (-2, -1)).numpy(), expected, atol=1e-5)


def test_high_pass_over_channels() -> None:
    x = torch.randn(1, 8, 2, 2)
    spectrum = np.fft.fft(x.numpy(), axis=1)
    spectrum[:, np.isin(np.fft.fftfreq(8, 1 / 8), (-2, -1, 0, 1))] = 0
    np.testing.assert_allclose(high_pass(x, (1,)).numpy(), np.maximum(np.fft.ifft(spectrum, axis=1).real, 0), atol=1e-6)


def test_gram_is_the_mean_product_of_feature_maps() -> None:
    x = torch.rand(2, 3, 4, 5)
    expected = torch.einsum("bchw,bdhw->bcd", x, x) / (3 * 4 * 5)
    torch.testing.assert_close(gram(x), expected)


def test_whole_patches_or_else_corners_and_centre() -> None:
    x = torch.arange(100.0).reshape(1, 1, 10, 10)
    whole = cut_patches(x, 5, 4)
    assert whole[0, :, 0, 0, 0].tolist() == [0, 5, 50, 55]
    corners = cut_patches(x[..., :8], 5, 4)
    assert corners[0, :, 0, 0, 0].tolist() == [0, 3, 50, 53, 22]


def test_the_low_pass_disc_lies_between_the_middle_frequencies() -> None:
    mask = low_pass_mask(8, 2)
    assert torch.equal(mask, mask.flip(0))
    assert mask.sum() == 16
    assert low_pass_mask(224, 16).sum() == 856


def test_low_and_high_frequencies_add_up() -> None:
    x = torch.rand(2, 3, 16, 16)
    low, high = split_frequencies(x, low_pass_mask(16, 4))
    torch.testing.assert_close(low + high, x, rtol=1e-5, atol=1e-5)
    assert low.var() < x.var()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("npr", {"image_size_px": 65}, "Expected an even `image_size_px`, got 65"),
        ("safe", {"crop_px": 33}, "Expected an even `crop_px`, got 33"),
        ("cnndetection", {"width": 0}, "Expected `layers` and `width` of at least 1"),
        ("freqnet", {"layers": (1,)}, "Expected two stages and a width of at least 4"),
        ("spai", {"patch_px": 100}, "Expected an even `patch_px` of whole tokens"),
        ("spai", {"crop_px": 100}, "Expected `crop_px` of at least `patch_px` = 224, got 100"),
        ("patchcraft", {"n_patches": 10}, "`n_patches` of at least grid x grid = 64"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_detector(name, **settings)


@pytest.mark.parametrize("name", ["cnndetection", "dimd"])
def test_whole_image_detectors_take_any_size_up_to_a_bound(name: str) -> None:
    detector = create_detector(name, layers=(1, 1, 1, 1), width=4, max_side_px=100)
    image = np.zeros((60, 300, 3), np.uint8)
    assert detector.preprocess(image).shape == (60, 100, 3)
    assert np.isfinite(detector.logit(image))


@pytest.mark.slow
def test_backbone_weights_start_the_trunk_and_leave_the_head(tmp_path: Path) -> None:
    published = timm.create_model("resnet18.tv_in1k", num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    detector = create_detector("gramnet", backbone_weights=tmp_path / "resnet18.pth")
    assert torch.equal(detector.layer3[1].conv2.weight, published.layer3[1].conv2.weight)
