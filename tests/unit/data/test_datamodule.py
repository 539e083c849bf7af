from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from forgery_det.core.errors import ConfigError, ManifestError
from forgery_det.data.datamodule import ManifestDataModule
from forgery_det.transforms.preprocess import CenterCrop, Preprocess

# Lightning 2.6 calls a function that torch 2.15 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")

CROP = Preprocess((CenterCrop(16, 16),))
SPLITS = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
LABELS = [0, 1, 1] * 4
GENERATORS = ["camera", "sd-1", "janus"] * 4


class Counter(LightningModule):
    """Remembers which images each step saw."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.steps: list[tuple[int, tuple[str, ...], float]] = []
        self.stop_after = stop_after

    def training_step(self, batch, batch_idx):
        self.steps.append((self.current_epoch, batch.image_id, float(batch.image_BCHW.sum())))
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveAndStop(Callback):
    """Save after some steps, then stop as a kill would."""

    def __init__(self, path: Path, after: int) -> None:
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.after:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


@pytest.fixture
def folder(make_dataset):
    return make_dataset(LABELS, split=SPLITS, generator=GENERATORS).root


def trainer(folder: Path, epochs: int, *callbacks: Callback) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def test_the_loaders_give_their_splits(folder):
    data = ManifestDataModule(folder, CROP, batch_size=2)
    frame = data.manifest.frame
    for name, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        ids = [image_id for batch in loader for image_id in batch.image_id]
        assert ids == frame.filter(frame["split"] == name)["image_id"].to_list()
    drawn = [image_id for batch in data.train_dataloader() for image_id in batch.image_id]
    assert len(drawn) == 6
    assert set(drawn) <= set(frame.filter(frame["split"] == "train")["image_id"])


def test_excluded_generators_stay_in_test_alone(folder):
    data = ManifestDataModule(folder, CROP, exclude_generators=("janus",))
    assert {name: set(data.split(name).frame["generator"]) for name in ("train", "val", "test")} == {
        "train": {"camera", "sd-1"},
        "val": {"camera", "sd-1"},
        "test": {"camera", "sd-1", "janus"},
    }
    assert "janus" in set(data.manifest.frame["generator"])


def test_the_sampler_counts_rows_in_the_images_it_is_given(folder):
    data = ManifestDataModule(folder, CROP, sampling="class_balanced")
    frame = data.split("train").frame
    # Reversed and without one real image: rows 0, 1, 3, 4 are generated, row 2 is real.
    ids = tuple(frame["image_id"].to_list()[:0:-1])
    drawn = [draw.row for draw in data.train_sampler(ids)]
    assert len(drawn) == 5
    assert drawn.count(2) in (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_inside_an_epoch_gives_the_same_next_batches(folder, tmp_path, num_workers):
    def data():
        return ManifestDataModule(folder, CROP, batch_size=2, augment="jpeg_blur", num_workers=num_workers, seed=5)

    whole, first, second = Counter(), Counter(), Counter()
    trainer(folder, 3).fit(whole, datamodule=data())
    with pytest.raises(SystemExit):
        trainer(folder, 3, SaveAndStop(tmp_path / "last.ckpt", after=4)).fit(first, datamodule=data())
    trainer(folder, 3).fit(second, datamodule=data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert len(whole.steps) == 9
    assert first.steps == whole.steps[:4]
    assert second.steps == whole.steps[4:]


def test_epochs_differ_in_order_and_augmentation(folder):
    seen = Counter()
    trainer(folder, 2).fit(seen, datamodule=ManifestDataModule(folder, CROP, batch_size=2, sampling="natural"))
    first = [image_id for epoch, ids, _ in seen.steps if epoch == 0 for image_id in ids]
    second = [image_id for epoch, ids, _ in seen.steps if epoch == 1 for image_id in ids]
    assert sorted(first) == sorted(second)
    assert first != second


def test_augmented_pixels_do_not_depend_on_the_workers(folder):
    def pixels(num_workers):
        data = ManifestDataModule(folder, CROP, batch_size=2, augment="jpeg_blur", num_workers=num_workers, seed=2)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        return torch.cat([batch.image_BCHW for batch in loader])

    np.testing.assert_array_equal(pixels(0), pixels(2))


def test_val_is_not_augmented(folder):
    plain = ManifestDataModule(folder, CROP)
    augmented = ManifestDataModule(folder, CROP, augment="jpeg_blur")
    for one, other in zip(plain.val_dataloader(), augmented.val_dataloader(), strict=True):
        np.testing.assert_array_equal(one.image_BCHW, other.image_BCHW)


def test_bad_files_are_collected_once_while_training(folder):
    for index in (1, 7):
        (folder / f"images/{index:03d}.png").write_bytes(b"")
    data = ManifestDataModule(folder, CROP, batch_size=2, sampling="natural")
    assert data.bad_files == ()
    trainer(folder, 2).fit(Counter(), datamodule=data)
    assert [bad.path for bad in data.bad_files] == ["images/001.png", "images/007.png"]
    assert all(bad.reason.startswith("empty: ") for bad in data.bad_files)


def test_a_split_without_images_is_explained(make_dataset):
    folder = make_dataset([0, 1, 1], generator=["camera", "sd-1", "janus"], split=["train", "train", "val"]).root
    with pytest.raises(ConfigError, match="Expected images in the split `test`, got none"):
        ManifestDataModule(folder, CROP).setup("test")
    with pytest.raises(ConfigError, match="Expected images in the split `val` without janus, got none"):
        ManifestDataModule(folder, CROP, exclude_generators=("janus",)).setup("fit")
    ManifestDataModule(folder, CROP).setup("fit")


def test_wrong_settings_are_explained(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"Expected `data\.batch_size` of at least 1, got 0"):
        ManifestDataModule(folder, CROP, batch_size=0)
    with pytest.raises(ConfigError, match=r"Expected `data\.num_workers` of at least 0, got -1"):
        ManifestDataModule(folder, CROP, num_workers=-1)
    with pytest.raises(ConfigError, match="Unknown augmentation 'flop': did you mean 'flip'"):
        ManifestDataModule(folder, CROP, augment="flop")
    with pytest.raises(
        ConfigError, match=r"Unknown generator 'janu' in `data\.exclude_generators`: did you mean 'janus'"
    ):
        ManifestDataModule(folder, CROP, exclude_generators=("janu",)).setup("fit")
    with pytest.raises(ConfigError, match="Unknown split 'validation'"):
        ManifestDataModule(folder, CROP).split("validation")
    with pytest.raises(ConfigError, match=r"Expected the geometry of the detector in `data\.preprocess`, got None"):
        ManifestDataModule(folder).val_dataloader()
    with pytest.raises(ManifestError, match="Expected a dataset folder"):
        ManifestDataModule(tmp_path / "nothing", CROP).setup("fit")
