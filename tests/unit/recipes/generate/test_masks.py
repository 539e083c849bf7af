from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image
from forgery_det.recipes.generate.masks import MaskPolicy, draw_mask
from forgery_det.recipes.generate.planning import encode_mask


@pytest.mark.parametrize("rule", ["box", "blob"])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (64, 64), (9, 200)])
def test_a_mask_covers_the_share_that_was_asked_for(rule: str, height: int, width: int) -> None:
    shares = [draw_mask(height, width, MaskPolicy(rule, (0.2, 0.3)), seed).mean() for seed in range(40)]
    slack = 0.15 if rule == "box" else 1 / (height * width)  # a box has whole sides
    assert 0.2 - slack <= min(shares)
    assert max(shares) <= 0.3 + slack
    assert len(set(shares)) > 5


@pytest.mark.parametrize("rule", ["box", "blob"])
def test_a_mask_is_one_region_and_follows_its_seed(rule: str) -> None:
    masks = [draw_mask(48, 64, MaskPolicy(rule), seed) for seed in range(20)]
    assert all(ndimage.label(mask)[1] == 1 for mask in masks)
    assert (masks[3] == draw_mask(48, 64, MaskPolicy(rule), 3)).all()
    assert len({mask.tobytes() for mask in masks}) == 20


def test_a_box_is_full_and_a_blob_is_not() -> None:
    def filled(rule: str, seed: int) -> float:
        mask = draw_mask(60, 60, MaskPolicy(rule, (0.2, 0.2)), seed)
        rows, columns = mask.any(axis=1).sum(), mask.any(axis=0).sum()
        return float(mask.sum() / (rows * columns))

    assert all(filled("box", seed) == 1.0 for seed in range(10))
    assert all(filled("blob", seed) < 0.95 for seed in range(10))


def test_none_and_all() -> None:
    assert not draw_mask(5, 7, MaskPolicy("none"), 0).any()
    assert draw_mask(5, 7, MaskPolicy("all"), 0).all()


def test_a_mask_file_has_one_bit_a_pixel() -> None:
    mask = draw_mask(33, 41, MaskPolicy("blob"), 5)
    decoded = decode_image(encode_mask(mask))
    assert decoded.facts.mode == "1"
    assert np.array_equal(decoded.image_HWC[:, :, 0] == 255, mask)
    assert encode_mask(mask) == encode_mask(mask.copy())


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"rule": "blobs"}, "did you mean 'blob'"),
        ({"share": (0.5, 0.2)}, "the smaller first"),
        ({"share": (0.0, 0.2)}, "(0, 0.9]"),
        ({"rule": "source"}, "Expected `images` with the rule 'source' alone"),
        ({"images": "masks"}, "Expected `images` with the rule 'source' alone"),
    ],
)
def test_mistakes_are_named(keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MaskPolicy(**keys)
    assert text in str(caught.value)
