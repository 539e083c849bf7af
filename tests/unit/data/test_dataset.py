from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import to_tensor

from forgery_det.data.dataset import BadFile, Draw, Item, ManifestDataset
from forgery_det.transforms.preprocess import CenterCrop, Preprocess


def test_an_item_is_the_preprocessed_image_with_its_label(make_dataset):
    manifest = make_dataset([0, 1])
    dataset = ManifestDataset(manifest, Preprocess((CenterCrop(10, 8),)))
    item = dataset[1]
    pixels = np.asarray(Image.open(manifest.root / "images/001.png"))
    assert isinstance(item, Item)
    assert (item.label, item.image_id) == (1, manifest.frame["image_id"][1])
    np.testing.assert_array_equal(item.image_CHW, to_tensor(Image.fromarray(pixels[7:17, 8:16])))
    assert len(dataset) == 2


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"no image at all", "not_an_image"), (None, "unreadable")]
)
def test_a_bad_file_is_named_with_its_reason(make_dataset, content, reason):
    manifest = make_dataset([0, 1])
    path = manifest.root / "images/000.png"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    bad = ManifestDataset(manifest, Preprocess())[0]
    assert isinstance(bad, BadFile)
    assert (bad.image_id, bad.path) == (manifest.frame["image_id"][0], "images/000.png")
    assert bad.reason.startswith(f"{reason}: Expected ")


def test_changed_bytes_are_noticed_when_asked_for(make_dataset):
    manifest = make_dataset([0, 1])
    (manifest.root / "images/000.png").write_bytes((manifest.root / "images/001.png").read_bytes())
    assert isinstance(ManifestDataset(manifest, Preprocess())[0], Item)
    checked = ManifestDataset(manifest, Preprocess(), verify_hash=True)
    assert isinstance(checked[1], Item)
    bad = checked[0]
    assert isinstance(bad, BadFile)
    assert bad.reason.startswith(f"hash_mismatch: Expected bytes with the sha256 {manifest.frame['image_id'][0]}")


def test_augmentation_depends_on_seed_epoch_and_position_alone(make_dataset):
    manifest = make_dataset([0, 1])

    def brighten(image, rng):
        return np.full_like(image, rng.integers(0, 256))

    def value(key, seed=0):
        return float(ManifestDataset(manifest, Preprocess(), augment=brighten, seed=seed)[key].image_CHW[0, 0, 0])

    assert value(Draw(0, 1, 1)) == value(1)
    assert value(Draw(2, 5, 1)) == value(Draw(2, 5, 0))
    assert len({value(Draw(2, 5, 1)), value(Draw(3, 5, 1)), value(Draw(2, 6, 1)), value(Draw(2, 5, 1), seed=1)}) == 4


def test_augmentation_comes_before_the_geometry(make_dataset):
    manifest = make_dataset([0])
    seen = []

    def remember(image, rng):
        seen.append(image.shape)
        return image

    ManifestDataset(manifest, Preprocess((CenterCrop(8, 8),)), augment=remember)[0]
    assert seen == [(24, 24, 3)]
