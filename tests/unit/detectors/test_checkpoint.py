from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from forgery_det.core.errors import ConfigError, UnknownNameError, WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors.checkpoint import (
    CHECKPOINT_KEY,
    describe,
    load_checkpoint,
    save_checkpoint,
    write_calibration,
)
from forgery_det.detectors.frozen_probe import FrozenProbe
from forgery_det.transforms.preprocess import CenterCrop, Preprocess

TINY = FrozenProbe.tiny
POINTS = {"fpr_1pct": 2.5, "fpr_5pct": 1.25, "balanced": 0.5}
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.fixture
def trained():
    """A probe whose every parameter of the head counts."""
    detector = create_detector("frozen_probe", **TINY)
    with torch.no_grad():
        detector.head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
        detector.head.linear.bias.fill_(0.25)
    detector.fit_feature_scaling(
        torch.rand(8, detector.head.linear.in_features, generator=torch.Generator().manual_seed(1))
    )
    return detector


def test_a_checkpoint_gives_the_same_detector_back(tmp_path, trained):
    save_checkpoint(tmp_path / "a.ckpt", trained, training={"n_train": 8})
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert loaded.detector.logit(IMAGE) == trained.logit(IMAGE) != 0
    assert not loaded.detector.training
    assert loaded.facts.detector == "frozen_probe"
    assert loaded.facts.preprocess == trained.preprocess
    assert loaded.facts.arguments == trained.arguments == loaded.detector.arguments
    assert loaded.facts.training == {"n_train": 8}
    assert loaded.facts.temperature is None
    assert loaded.facts.operating_points is None


def test_create_detector_takes_a_checkpoint_and_new_settings(tmp_path, trained):
    save_checkpoint(tmp_path / "a.ckpt", trained)
    assert create_detector("frozen_probe", weights=tmp_path / "a.ckpt").logit(IMAGE) == trained.logit(IMAGE)
    cropped = create_detector("frozen_probe", weights=str(tmp_path / "a.ckpt"), geometry="crop")
    assert cropped.preprocess == Preprocess((CenterCrop(64, 64, "reflect"),))
    torch.testing.assert_close(cropped.state_dict(), trained.state_dict())


def test_the_packaged_backbone_is_not_needed_to_load(tmp_path, trained, monkeypatch):
    trained.arguments = dict(trained.arguments) | {"backbone_weights": "package"}
    save_checkpoint(tmp_path / "a.ckpt", trained)
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert loaded.detector.logit(IMAGE) == trained.logit(IMAGE)
    assert loaded.detector.arguments["backbone_weights"] == "package"


def test_the_geometry_of_training_is_kept(tmp_path, trained):
    trained.preprocess = Preprocess((CenterCrop(64, 64),))
    save_checkpoint(tmp_path / "a.ckpt", trained)
    assert load_checkpoint(tmp_path / "a.ckpt").detector.preprocess == trained.preprocess


def test_another_detectors_checkpoint_is_refused(tmp_path, trained):
    save_checkpoint(tmp_path / "a.ckpt", trained)
    with pytest.raises(WeightsError, match="Expected a checkpoint of timm_classifier, got one of frozen_probe"):
        create_detector("timm_classifier", weights=tmp_path / "a.ckpt")


def test_settings_that_do_not_fit_the_tensors_are_explained(tmp_path, trained):
    save_checkpoint(tmp_path / "a.ckpt", trained)
    with pytest.raises(WeightsError, match=r"Expected weights that fit FrozenProbe .* got keys .*head"):
        create_detector("frozen_probe", weights=tmp_path / "a.ckpt", blocks=(0,))


def test_calibration_is_written_into_the_file_and_all_else_kept(tmp_path, trained):
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, trained, training={"n_train": 8})
    content = torch.load(path, weights_only=True) | {"epoch": 4, "optimizer_states": [{"lr": 0.1}]}
    torch.save(content, path)
    write_calibration(path, 1.75, POINTS | {"balanced": np.float64(0.5)})
    loaded = load_checkpoint(path)
    assert (loaded.facts.temperature, loaded.facts.operating_points) == (1.75, POINTS)
    assert loaded.facts.training == {"n_train": 8}
    assert loaded.detector.logit(IMAGE) == trained.logit(IMAGE)
    after = torch.load(path, weights_only=True)
    assert (after["epoch"], after["optimizer_states"]) == (4, [{"lr": 0.1}])
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize(
    ("temperature", "points", "text"),
    [
        (0.0, POINTS, "Expected `temperature` to be a finite number above 0, got 0.0"),
        (math.nan, POINTS, "got nan"),
        (1.0, {"fpr_1pct": 1.0}, r"Expected the operating points .* got \('fpr_1pct',\)"),
        (1.0, POINTS | {"balanced": math.nan}, "Expected a threshold for the operating point balanced, got nan"),
    ],
)
def test_wrong_calibration_is_refused_and_the_file_kept(tmp_path, trained, temperature, points, text):
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, trained)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=text):
        write_calibration(path, temperature, points)
    assert path.read_bytes() == before


def test_a_file_that_is_not_ours_is_explained(tmp_path, trained):
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "a.pth")
    for use in (load_checkpoint, lambda path: write_calibration(path, 1.0, POINTS)):
        with pytest.raises(WeightsError, match="Expected a checkpoint of forgery-det, got a weights file without"):
            use(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"format": 2}, r"Expected a checkpoint of format 1, got 2 .*newer forgery-det"),
        ({"kwargs": None}, "Expected a readable `forgery_det` entry, got .*NoneType"),
        ({"preprocess": [{"kind": "nonsense"}]}, "Unknown preprocessing step 'nonsense'"),
    ],
)
def test_a_changed_entry_is_explained(tmp_path, trained, changes, text):
    entry = describe(trained) | changes
    torch.save({"state_dict": {}, CHECKPOINT_KEY: entry}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match=text):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_detector_of_another_version_is_explained(tmp_path, trained):
    torch.save({"state_dict": {}, CHECKPOINT_KEY: describe(trained) | {"detector": "frozen_prob"}}, tmp_path / "a.ckpt")
    with pytest.raises(UnknownNameError, match="did you mean 'frozen_probe'"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_missing_fact_is_explained(tmp_path, trained):
    entry = describe(trained)
    del entry["temperature"]
    torch.save({"state_dict": {}, CHECKPOINT_KEY: entry}, tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="Expected `temperature` in the `forgery_det` entry, got none"):
        load_checkpoint(tmp_path / "a.ckpt")


def test_a_detector_built_directly_cannot_be_described():
    with pytest.raises(
        ConfigError, match="Expected a detector built by create_detector, got a FrozenProbe built directly"
    ):
        describe(FrozenProbe(**TINY))


def test_paths_are_kept_as_text_and_objects_refused(trained):
    trained.arguments = dict(trained.arguments) | {"backbone_weights": Path("a/b.pth"), "blocks": (0, 1)}
    described = describe(trained)["kwargs"]
    assert (described["backbone_weights"], described["blocks"]) == ("a/b.pth", (0, 1))
    with pytest.raises(
        ConfigError, match=r"Expected numbers, texts, lists and dictionaries, got set \(training summary, x\)"
    ):
        describe(trained, training={"x": {1}})
