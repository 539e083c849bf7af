"""Manifest -> loaders for training: splits, sampling, augmentation, and the list of files that could not be used."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import SPLITS
from forgery_det.data.batches import Batch, collate
from forgery_det.data.dataset import BadFile, ManifestDataset
from forgery_det.data.loader import ResumableLoader
from forgery_det.data.sampling import EpochSampler, Sampling
from forgery_det.transforms.augment import create_augment
from forgery_det.transforms.preprocess import Preprocess


class ManifestDataModule(LightningDataModule):
    """Loaders for the splits of a dataset folder.

    Args:
        dataset: Dataset folder.
        preprocess: Geometry of the detector; None only where it is set before the first loader is asked for.
        batch_size: Images a batch.
        num_workers: Processes that decode; 0 decodes in this one. The numbers are the same.
        sampling: How `train` is drawn: `natural`, `class_balanced` or `source_balanced`.
        augment: Name of a training augmentation (`transforms.augment`), applied to `train` alone; None for none.
        exclude_generators: Generators left out of `train` and `val` (never of `test`), to see whether a detector holds
            on what it was not shown.
        seed: Of the order and the augmentation.
        verify_hash: Whether each file's bytes must have the sha256 that `image_id` states.

    Raises:
        ConfigError: A number is out of range, or a name is unknown.
        ManifestError: The folder holds no valid manifest (when it is first read).
    """

    def __init__(
        self,
        dataset: Path,
        preprocess: Preprocess | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        sampling: Sampling = "class_balanced",
        augment: str | None = None,
        exclude_generators: tuple[str, ...] = (),
        seed: int = 0,
        verify_hash: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ConfigError(f"Expected `data.batch_size` of at least 1, got {batch_size}.")
        if num_workers < 0:
            raise ConfigError(f"Expected `data.num_workers` of at least 0, got {num_workers}.")
        self.dataset = Path(dataset)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.sampling: Sampling = sampling
        self.augment = augment
        self.exclude_generators = tuple(exclude_generators)
        self.seed = seed
        self.verify_hash = verify_hash
        self._augment = None if augment is None else create_augment(augment)
        self._bad: dict[str, BadFile] = {}

    @cached_property
    def manifest(self) -> Manifest:
        """The whole dataset, with the excluded generators."""
        manifest = Manifest.load(self.dataset)
        known = set(manifest.frame["generator"])
        for name in self.exclude_generators:
            if name not in known:
                raise ConfigError(
                    f"Unknown generator {name!r} in `data.exclude_generators`: {did_you_mean(name, known)}"
                )
        return manifest

    @property
    def bad_files(self) -> tuple[BadFile, ...]:
        """Files that were met so far and could not be used, each once, by path."""
        return tuple(sorted(self._bad.values(), key=lambda file: file.path))

    def split(self, name: str) -> Manifest:
        """Return the images of a split; `train` and `val` without the excluded generators.

        Raises:
            ConfigError: There is no such split, or it has no image.
        """
        if name not in SPLITS:
            raise ConfigError(f"Unknown split {name!r}: {did_you_mean(name, SPLITS)}")
        excluded = () if name == "test" else self.exclude_generators
        part = self.manifest.subset(pl.col("split") == name, ~pl.col("generator").is_in(excluded))
        if not len(part):
            without = f" without {', '.join(excluded)}" if excluded else ""
            raise ConfigError(f"Expected images in the split `{name}`{without}, got none ({self.dataset}).")
        return part

    def train_sampler(self, image_ids: tuple[str, ...] | None = None) -> EpochSampler:
        """Return the sampler of `train`.

        Args:
            image_ids: The images that rows are counted in, a selection of `train`; None is all of `train`, in order.
        """
        frame = self.split("train").frame.select("image_id", "label", "source")
        if image_ids is not None:
            frame = pl.DataFrame({"image_id": image_ids}).join(frame, on="image_id", how="inner", maintain_order="left")
        return EpochSampler(frame["label"].to_list(), frame["source"].to_list(), self.sampling, self.seed)

    def setup(self, stage: str | None = None) -> None:
        """Check that the splits which a stage needs have images."""
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for name in needed.get(stage or "", ()):
            self.split(name)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of `train`, sampled and augmented; the last one may be smaller."""
        dataset = ManifestDataset(
            self.split("train"), self._geometry(), self._augment, seed=self.seed, verify_hash=self.verify_hash
        )
        return self._loader(dataset, self.train_sampler())

    def val_dataloader(self) -> DataLoader[Any]:
        """Return batches of `val` in the manifest's order."""
        return self._loader(self._plain("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """Return batches of `test` in the manifest's order."""
        return self._loader(self._plain("test"))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002 - Lightning's signature
        """Note the bad files of a batch; Lightning calls this for each."""
        if isinstance(batch, Batch):
            self._bad.update({file.image_id: file for file in batch.bad})
        return batch

    def _plain(self, split: str) -> ManifestDataset:
        return ManifestDataset(self.split(split), self._geometry(), verify_hash=self.verify_hash)

    def _geometry(self) -> Preprocess:
        if self.preprocess is None:
            raise ConfigError(
                "Expected the geometry of the detector in `data.preprocess`, got None. `forgery-det fit` sets it; in "
                "Python give ManifestDataModule(..., preprocess=detector.preprocess)."
            )
        return self.preprocess

    def _loader(self, dataset: ManifestDataset, sampler: EpochSampler | None = None) -> DataLoader[Any]:
        return ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            persistent_workers=self.num_workers > 0,
            # Its own generator: a loader otherwise draws a seed from the global one at every pass.
            generator=torch.Generator(),
        )
