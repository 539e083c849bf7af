from __future__ import annotations

import numpy as np
import pytest
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.transforms.preprocess import Preprocess
from forgery_det.transforms.steps_geometry import LimitSide, PadTo
from forgery_det.transforms.steps_patches import TextureMosaics, float32_sum, texture


@pytest.mark.parametrize("n_values", [8, 31, 675, 2883, 2976, 20000])
def test_float32_sum_has_the_rounding_of_torch(n_values: int) -> None:
    rows = np.random.default_rng(n_values).random((50, n_values)).astype(np.float32)
    expected = [float(torch.from_numpy(row).sum()) for row in rows]
    assert float32_sum(rows).tolist() == expected


def test_texture_adds_the_four_directions() -> None:
    patch = np.random.default_rng(0).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    x = patch.astype(np.float64) / 255
    total = 0.0
    for down, right in ((1, 0), (0, 1), (1, 1), (1, -1)):
        for i in range(5):
            for j in range(5):
                if i + down < 5 and 0 <= j + right < 5:
                    total += np.abs(x[i, j] - x[i + down, j + right]).sum()
    assert texture(patch[None])[0] == pytest.approx(total, rel=1e-5)


def test_the_poorest_and_the_richest_patches_are_laid_out_in_order() -> None:
    step = TextureMosaics(patch_px=4, grid=2, n_patches=9)
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    poor, rich = step(image)

    def patches(mosaic: np.ndarray) -> np.ndarray:
        return np.stack([mosaic[i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)])

    poor_texture, rich_texture = texture(patches(poor)), texture(patches(rich))
    assert (np.diff(poor_texture) >= 0).all()
    assert (np.diff(rich_texture) <= 0).all()
    assert poor_texture.max() <= rich_texture.min()


def test_places_depend_on_the_seed_and_the_size_alone() -> None:
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    step = TextureMosaics(8, 2, 12)
    assert np.array_equal(step(image), step(image.copy()))
    assert not np.array_equal(step(image), TextureMosaics(8, 2, 12, seed=1)(image))


def test_an_image_below_a_patch_becomes_one_patch() -> None:
    views = TextureMosaics(8, 2, 6)(np.random.default_rng(3).integers(0, 256, (3, 90, 3)).astype(np.uint8))
    assert views.shape == (2, 16, 16, 3)
    assert np.array_equal(views[0, :8, :8], views[1, 8:, 8:])


def test_mosaics_refuse_numbers_out_of_range() -> None:
    with pytest.raises(ConfigError, match="`n_patches` of at least grid x grid = 64"):
        TextureMosaics(n_patches=63)
    with pytest.raises(
        ConfigError, match="Expected `grid` of texture_mosaics to be a whole number of at least 1, got 0"
    ):
        TextureMosaics(grid=0)


def test_limit_side_keeps_the_centre() -> None:
    image = np.arange(10, dtype=np.uint8)[None, :, None].repeat(3, axis=0).repeat(3, axis=2)
    assert LimitSide(4)(image)[0, :, 0].tolist() == [3, 4, 5, 6]
    assert LimitSide(10)(image).shape == image.shape


def test_pad_to_mirrors_short_sides_only() -> None:
    image = np.arange(3, dtype=np.uint8)[:, None, None].repeat(20, axis=1).repeat(3, axis=2)
    padded = PadTo(8)(image)
    assert padded.shape == (8, 20, 3)
    assert padded[:, 0, 0].tolist() == [2, 1, 0, 1, 2, 1, 0, 1]


@pytest.mark.parametrize("step", [LimitSide(9), PadTo(9, "zero"), TextureMosaics(8, 2, 5)], ids=lambda s: s.kind)
def test_steps_survive_json(step: object) -> None:
    preprocess = Preprocess((step,))
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
