from __future__ import annotations

import numpy as np
import pytest
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import encode_image
from forgery_det.data.batches import Batch, collate, iterate_batches
from forgery_det.data.dataset import BadFile, Item
from forgery_det.transforms.preprocess import CenterCrop, Preprocess

CROP = Preprocess((CenterCrop(16, 16),))


def item(label: int, size: int = 4) -> Item:
    return Item(torch.full((3, size, size), float(label)), label, f"{label}" * 64)


def test_collate_keeps_the_order_and_names_the_bad():
    bad = BadFile("f" * 64, "images/x.png", "empty: Expected an image, got zero bytes.")
    batch = collate([item(1), bad, item(0)])
    assert batch.image_BCHW.shape == (2, 3, 4, 4)
    assert batch.label_B.dtype == torch.float32
    assert batch.label_B.tolist() == [1.0, 0.0]
    assert batch.image_id == ("1" * 64, "0" * 64)
    assert batch.bad == (bad,)


def test_a_batch_of_bad_files_is_empty_not_an_error():
    bad = BadFile("f" * 64, "images/x.png", "empty")
    batch = collate([bad, bad])
    assert batch.image_BCHW.shape == (0, 3, 0, 0)
    assert (len(batch.label_B), batch.image_id, batch.bad) == (0, (), (bad, bad))


def test_images_of_two_sizes_are_explained():
    with pytest.raises(ConfigError) as caught:
        collate([item(1, 4), item(0, 5)])
    assert "Expected images of one size in a batch, got 3 x 4 x 4 (111111111111) and 3 x 5 x 5" in str(caught.value)
    assert "use batch_size 1" in str(caught.value)


def test_all_rows_come_once_in_order(make_dataset):
    manifest = make_dataset([0, 1, 1, 0, 1])
    batches = list(iterate_batches(manifest, CROP, 2))
    assert [len(batch.image_id) for batch in batches] == [2, 2, 1]
    assert [name for batch in batches for name in batch.image_id] == manifest.frame["image_id"].to_list()
    assert torch.cat([batch.label_B for batch in batches]).tolist() == [0, 1, 1, 0, 1]


def test_bad_files_are_counted_and_nothing_takes_their_place(make_dataset):
    manifest = make_dataset([0, 1, 1, 0, 1])
    for index in (0, 1, 4):
        (manifest.root / f"images/00{index}.png").write_bytes(b"")
    batches = list(iterate_batches(manifest, CROP, 2))
    assert [len(batch.image_id) for batch in batches] == [0, 2, 0]
    assert [bad.path for batch in batches for bad in batch.bad] == [f"images/00{k}.png" for k in (0, 1, 4)]


def test_workers_change_nothing(make_dataset):
    manifest = make_dataset([0, 1, 1, 0, 1])
    (manifest.root / "images/002.png").write_bytes(b"")
    for one, other in zip(iterate_batches(manifest, CROP, 2), iterate_batches(manifest, CROP, 2, 2), strict=True):
        assert isinstance(other, Batch)
        np.testing.assert_array_equal(one.image_BCHW, other.image_BCHW)
        assert one[2:] == other[2:]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_keeps_its_kind(make_dataset, num_workers):
    manifest = make_dataset([0, 1])
    small = encode_image(np.zeros((20, 24, 3), np.uint8), "png", None)
    (manifest.root / "images/001.png").write_bytes(small)
    with pytest.raises(ConfigError, match="Expected images of one size in a batch, got 3 x 24 x 24"):
        list(iterate_batches(manifest, Preprocess(), 2, num_workers))


def test_no_global_random_number_is_used(make_dataset):
    manifest = make_dataset([0, 1])
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(iterate_batches(manifest, CROP, 1))
    assert torch.rand(1) == expected
