from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from forgery_det.audits import AuditFinding, audit
from forgery_det.audits import detector_logits as scoring
from forgery_det.audits.reencode_shift import level_of, reencoded
from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.detectors.base import Detector
from forgery_det.detectors.checkpoint import save_checkpoint
from forgery_det.detectors.factory import create_detector
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.ranking import auroc
from forgery_det.transforms.preprocess import CenterCrop, Preprocess
from synth.planted import Planter


class Blockiness(Detector):
    """How much smoother the picture is inside 8 x 8 blocks than across them: it reads JPEG, and nothing else."""

    preprocess = Preprocess((CenterCrop(40, 48),))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        step = (image_BCHW[..., 1:] - image_BCHW[..., :-1]).abs().mean(dim=(1, 2))
        across = torch.arange(step.shape[1]) % 8 == 7
        return step[:, ~across].mean(dim=1) - step[:, across].mean(dim=1)


class Brightness(Detector):
    """The mean of the picture, which no codec changes much."""

    preprocess = Preprocess((CenterCrop(40, 48),))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return image_BCHW.mean(dim=(1, 2, 3))


def findings(
    planter: Planter, monkeypatch: pytest.MonkeyPatch, detector: Detector, **options: float
) -> dict[str, AuditFinding]:
    checkpoint = planter.root / "any.ckpt"
    checkpoint.write_bytes(b"replaced")
    monkeypatch.setattr(scoring, "load_detector", lambda _path, _device: detector.eval())
    dataset = planter.build()
    report = audit(dataset, only=["reencode_shift"], checkpoint=checkpoint, n_replicates=100, **options)
    assert report.options["checkpoint"] == str(checkpoint)
    assert len(report.options["checkpoint_sha256"]) == 64
    return {finding.slice: finding for finding in report.findings}


def test_a_detector_of_the_last_codec_fails(planter: Planter, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in planter.plan:
        entry["split"] = "test"
    for entry in planter.of_label(0):
        entry["quality"] = 75
    for entry in planter.of_label(1):
        entry.update({"codec": "png", "quality": None})
    found = findings(planter, monkeypatch, Blockiness())
    assert found["codec=jpeg,quality=75"].level == "fail"
    assert found["codec=jpeg,quality=75"].value is not None
    assert "This detector reads the last codec of these files" in found["codec=jpeg,quality=75"].detail


def test_the_shift_is_the_difference_of_the_two_aurocs(planter: Planter, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in planter.plan:
        entry["split"] = "test"
    detector = Blockiness()
    found = findings(planter, monkeypatch, detector)["codec=webp,quality=80"]
    frame = Manifest.load(planter.root).frame
    before, after = [], []
    for path in frame["path"]:
        image = decode_image((planter.root / path).read_bytes()).image_HWC
        before.append(detector.logit(image))
        after.append(detector.logit(decode_image(encode_image(image, "webp", 80)).image_HWC))
    label = frame["label"].to_numpy()
    assert found.value == pytest.approx(auroc(label, np.array(before)) - auroc(label, np.array(after)), abs=1e-6)
    assert found.n == 48


def test_a_detector_of_the_content_passes(planter: Planter, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in planter.plan:
        entry["split"] = "test"
        entry["tint"] = 40 * entry["label"]
    found = findings(planter, monkeypatch, Brightness())
    assert {finding.level for finding in found.values()} == {"pass"}


def test_without_a_checkpoint_nothing_is_said(planter: Planter) -> None:
    (found,) = audit(planter.build(), only=["reencode_shift"]).findings
    assert found.level == "not_estimable"
    assert found.detail == "No checkpoint was given (`--checkpoint`), so no detector was tried."


def test_a_small_test_split_is_not_estimable(planter: Planter, monkeypatch: pytest.MonkeyPatch) -> None:
    del planter.plan[40:]
    found = findings(planter, monkeypatch, Brightness())
    assert {finding.level for finding in found.values()} == {"not_estimable"}
    assert "source_ids of real" in found["codec=jpeg,quality=75"].detail


def test_a_real_checkpoint_is_scored(planter: Planter, tmp_path: Path) -> None:
    for entry in planter.plan:
        entry["split"] = "test"
    checkpoint = tmp_path / "power.ckpt"
    save_checkpoint(checkpoint, create_detector("power_spectrum", crop_px=32))
    report = audit(planter.build(), only=["reencode_shift"], checkpoint=checkpoint, n_replicates=50)
    assert {finding.n for finding in report.findings} == {48}


def test_wrong_options_are_told(planter: Planter, tmp_path: Path) -> None:
    dataset = planter.build()
    with pytest.raises(ConfigError, match="Expected a checkpoint file, got none at"):
        audit(dataset, checkpoint=tmp_path / "gone.ckpt")
    with pytest.raises(ConfigError, match=r"Expected `reencode_limit` in \[0, 0.5\], got 2"):
        audit(dataset, reencode_limit=2)
    with pytest.raises(ConfigError, match="Expected `device` to be cpu or cuda, got 'tpu'"):
        audit(dataset, device="tpu")


def test_both_directions_fail() -> None:
    assert level_of(Comparison(-0.2, -0.3, -0.1, 0.01, 90), 0.05) == "fail"
    assert level_of(Comparison(-0.2, -0.4, 0.01, 0.06, 90), 0.05) == "pass"
    assert level_of(Comparison(0.0, None, None, None, 90), 0.05) == "pass"
    assert level_of(Comparison.missing(3, "none"), 0.05) == "not_estimable"


def test_reencoding_is_the_codec_of_core() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    again = reencoded(image, "jpeg", 75)
    assert not np.array_equal(again, image)
    assert np.array_equal(again, reencoded(image, "jpeg", 75))
