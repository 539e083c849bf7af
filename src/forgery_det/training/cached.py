"""The data module of a frozen detector: the same splits and sampling as `ManifestDataModule`, on stored features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from forgery_det.core.progress import ProgressSink, silent
from forgery_det.data.datamodule import ManifestDataModule
from forgery_det.data.dataset import BadFile, Draw
from forgery_det.data.loader import ResumableLoader
from forgery_det.data.sampling import EpochSampler
from forgery_det.detectors.base import FrozenFeatures
from forgery_det.training.features import FeatureBatch, FeatureTable, compute_features


class _Rows(Dataset[FeatureBatch]):
    """Rows of a feature table; asked for a batch of them at once."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table.image_id)

    def __getitems__(self, wanted: list[int | Draw]) -> FeatureBatch:
        indices = [entry.row if isinstance(entry, Draw) else entry for entry in wanted]
        rows = torch.tensor(indices, dtype=torch.long)
        image_ids = tuple(self.table.image_id[index] for index in indices)
        return FeatureBatch(self.table.feature[rows], self.table.label_N[rows], image_ids)


def _as_is(batch: Any) -> Any:
    # `__getitems__` has put the batch together.
    return batch


class FeatureDataModule(LightningDataModule):
    """Feeds stored features to the head of a frozen detector.

    Args:
        data: The images, splits and sampling.
        detector: Whose features; its feature scaling is fitted on `train` here, before the first step.
        folder: Where features are kept.
        progress: Told while features are computed.
        whole_splits: Compute the features of excluded generators too. They are not used, but trainings that exclude
            other generators then read the same files.
        device: Where features are computed; None leaves the detector where it is.
    """

    def __init__(
        self,
        data: ManifestDataModule,
        detector: FrozenFeatures,
        folder: Path,
        progress: ProgressSink = silent,
        *,
        whole_splits: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.whole_splits, self.device = whole_splits, device
        self.data, self.detector, self.folder, self.progress = data, detector, folder, progress
        self.tables: dict[str, FeatureTable] = {}

    @property
    def bad_files(self) -> tuple[BadFile, ...]:
        """Files of train and val that could not be read."""
        return tuple(file for table in self.tables.values() for file in table.bad)

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Compute or read the features of train and val, once."""
        if not self.tables:
            self.tables = {split: self._features(split) for split in ("train", "val")}
            self.detector.fit_feature_scaling(self.tables["train"].feature)

    def fit_scaling(self) -> None:
        """Fit the head's scaling on the features of train, for a head that is then fed with images."""
        self.detector.fit_feature_scaling(self._features("train").feature)

    def _features(self, split: str) -> FeatureTable:
        wanted = self.data.split(split)
        everything = self.data.manifest.subset(pl.col("split") == split)
        table = compute_features(
            self.detector,
            everything if self.whole_splits else wanted,
            self.folder,
            batch_size=self.data.batch_size,
            num_workers=self.data.num_workers,
            device=self.device,
            stage=f"features of {split}",
            progress=self.progress,
        )
        return table.only(frozenset(wanted.frame["image_id"])) if self.whole_splits else table

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches of features in the order in which the images would have come."""
        return self._loader("train", self.data.train_sampler(self.tables["train"].image_id))

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the features of val in the manifest's order."""
        return self._loader("val")

    def _loader(self, split: str, sampler: EpochSampler | None = None) -> DataLoader[Any]:
        return ResumableLoader(
            _Rows(self.tables[split]),
            batch_size=self.data.batch_size,
            sampler=sampler,
            collate_fn=_as_is,
            # Its own generator: a loader otherwise draws a seed from the global one at every pass.
            generator=torch.Generator(),
        )
