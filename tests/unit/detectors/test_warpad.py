from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.warpad import WaRPAD, high_frequencies, patches

SETTINGS = {"backbone": "test_vit", "backbone_weights": None, "patch_px": 32, "grid": 2}


def haar(n: int) -> np.ndarray:
    """One level of the orthonormal Haar transform of n values: averages first, then differences."""
    pair = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)
    both = block_diag(*[pair] * (n // 2))
    return np.concatenate([both[::2], both[1::2]])


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_high_frequencies_are_the_haar_bands_above_the_lowest(levels):
    image = np.random.default_rng(0).standard_normal((16, 24))
    rows, columns = np.eye(16), np.eye(24)
    for level in range(levels):
        h, w = 16 >> level, 24 >> level
        rows = block_diag(haar(h), np.eye(16 - h)) @ rows
        columns = block_diag(haar(w), np.eye(24 - w)) @ columns
    # A separable transform of all levels at once has the same lowest band as the nested one.
    bands = rows @ image @ columns.T
    bands[: 16 >> levels, : 24 >> levels] = 0
    expected = rows.T @ bands @ columns
    ours = high_frequencies(torch.from_numpy(image)[None, None].float(), levels)[0, 0]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_patches_are_cut_row_by_row():
    image = torch.arange(3 * 4 * 6).reshape(3, 4, 6).float()
    cut = patches(image, 2)
    assert cut.shape == (6, 3, 2, 2)
    assert torch.equal(cut[1], image[:, :2, 2:4])
    assert torch.equal(cut[3], image[:, 2:, :2])


def test_the_logit_is_minus_the_mean_cosine_over_patches():
    warpad = WaRPAD(strength=0.5, levels=2, **SETTINGS)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = []
    for x in warpad.normalise(image):
        cosines = []
        for top in (0, 32):
            for left in (0, 32):
                patch = x[:, top : top + 32, left : left + 32]
                low = torch.zeros_like(patch)
                for y in range(0, 32, 4):
                    for z in range(0, 32, 4):
                        low[:, y : y + 4, z : z + 4] = patch[:, y : y + 4, z : z + 4].mean(dim=(1, 2), keepdim=True)
                a, b = warpad.backbone(torch.stack([patch, patch + 0.5 * (patch - low)])).double()
                cosines.append(float(a @ b / a.norm() / b.norm()))
        expected.append(-np.mean(cosines))
    np.testing.assert_allclose(warpad(image).numpy(), expected, rtol=1e-5)


def test_a_flat_image_has_nothing_to_amplify():
    assert WaRPAD(**SETTINGS).logit(np.full((50, 40, 3), 90, np.uint8)) == pytest.approx(-1, abs=1e-5)


def test_the_geometry_is_the_papers():
    assert WaRPAD(**SETTINGS).preprocess.to_json() == [
        {"kind": "resize_exact", "height_px": 64, "width_px": 64, "kernel": "bicubic"}
    ]


def test_wrong_settings_are_refused():
    with pytest.raises(
        ConfigError, match=r"a multiple of 2 to the power of `levels`, got levels=3, grid=2, patch_px=36"
    ):
        WaRPAD(**SETTINGS | {"patch_px": 36, "levels": 3})
    with pytest.raises(ConfigError, match="Expected `strength` to be a finite number above 0, got 0"):
        WaRPAD(strength=0, **SETTINGS)
