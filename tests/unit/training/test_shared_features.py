"""Trainings that exclude other generators read the same feature files, and learn what they would have learnt alone."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from forgery_det.core.manifest import Manifest
from forgery_det.data.datamodule import ManifestDataModule
from forgery_det.detectors import create_detector
from forgery_det.training.cached import FeatureDataModule

TINY = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}


@pytest.fixture
def two_generators(learnable: Path, tmp_path: Path) -> Path:
    frame = Manifest.load(learnable).frame
    other = (pl.col("label") == 1) & (pl.int_range(pl.len()) % 4 == 1)
    name = pl.when(other).then(pl.lit("grid-2")).otherwise(pl.col("generator"))
    (tmp_path / "images").symlink_to(learnable / "images")
    Manifest(frame.with_columns(name.alias("generator")), tmp_path).write()
    return tmp_path


def test_files_are_shared_and_rows_are_those_of_the_training(two_generators: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = create_detector("frozen_probe", **TINY)
    folder, found = tmp_path / "features", {}
    for excluded in ((), ("grid-2",)):
        images = ManifestDataModule(two_generators, detector.preprocess, exclude_generators=excluded)
        data = FeatureDataModule(images, detector, folder, whole_splits=True)
        data.setup()
        found[excluded] = data.tables["train"]
        assert len(list(folder.iterdir())) == 2
        assert list(data.tables["train"].image_id) == images.split("train").frame["image_id"].to_list()
        alone = FeatureDataModule(images, detector, tmp_path / f"alone-{len(excluded)}")
        alone.setup()
        torch.testing.assert_close(data.tables["val"].feature, alone.tables["val"].feature, rtol=1e-5, atol=1e-5)
        assert torch.equal(data.tables["train"].label_N, alone.tables["train"].label_N)
    assert len(found["grid-2",].image_id) < len(found[()].image_id)
