from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor as torchvision_to_tensor

from forgery_det.transforms.preprocess import resize
from forgery_det.transforms.tensors import to_tensor


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 1), (7, 9)])
def test_equals_torchvision(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    torch.testing.assert_close(to_tensor(image), torchvision_to_tensor(Image.fromarray(image)), rtol=0, atol=0)


def test_views_keep_their_place():
    image = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), dtype=np.uint8)
    stacked = torch.stack([to_tensor(view) for view in image])
    torch.testing.assert_close(to_tensor(image), stacked, rtol=0, atol=0)


def test_the_tensor_shares_no_memory_with_the_image():
    # Arrays from Pillow are read-only; a tensor on top of one warns, and writing to it would be undefined.
    image = resize(np.zeros((2, 2, 3), np.uint8), 1, 1, "box")
    tensor = to_tensor(image).add_(1)
    assert image.max() == 0
    assert tensor.min() == 1
