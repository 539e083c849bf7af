from __future__ import annotations

import numpy as np
import pytest

from forgery_det.audits import AuditFinding, audit
from forgery_det.audits.thumbnail import content_features
from synth.planted import Planter


def findings(planter: Planter) -> dict[str, AuditFinding]:
    report = audit(planter.build(), only=["thumbnail_content"], n_replicates=100)
    return {finding.slice: finding for finding in report.findings}


def test_another_layout_warns_and_does_not_fail(planter: Planter) -> None:
    for entry in planter.of_label(1):
        entry["tint"] = 60
    found = findings(planter)
    assert found["overall"].level == "warn"
    assert found["overall"].passed
    assert found["overall"].value is not None
    assert found["overall"].value > 0.9
    assert "the classes differ in what they show" in found["overall"].detail


def test_the_same_subjects_pass(planter: Planter) -> None:
    assert {finding.level for finding in findings(planter).values()} == {"pass"}


def test_a_generator_with_its_own_subject_is_found(planter: Planter) -> None:
    for entry in planter.plan:
        if entry["generator"] == "sdxl":
            entry["tint"] = 80
    found = findings(planter)
    assert found["generator=sdxl"].level == "warn"
    assert found["generator=flux"].level == "pass"


def test_noise_is_no_content(planter: Planter) -> None:
    """What detectors look at must not show here: fine noise vanishes in an 8 x 8 thumbnail."""
    image = np.full((240, 240, 3), 100, np.uint8)
    noise = np.random.default_rng(0).choice([-4, 4], image.shape)
    noisy = (image + noise).astype(np.uint8)
    assert np.abs(content_features(image) - content_features(noisy)).max() < 0.005


def test_files_that_cannot_be_decoded_are_left_out(planter: Planter) -> None:
    dataset = planter.build()
    victims = sorted(dataset.glob("images/*/*"))[:7]
    for victim in victims:
        victim.write_bytes(b"no image")
    (overall, *_) = audit(dataset, only=["thumbnail_content"], n_replicates=50).findings
    assert overall.n == 41
    assert overall.detail.endswith("Looked at 41 of 48 images.")


def test_a_dataset_whose_files_are_all_broken_is_not_estimable(planter: Planter) -> None:
    dataset = planter.build()
    for victim in dataset.glob("images/*/*"):
        victim.write_bytes(b"no image")
    (overall,) = audit(dataset, only=["thumbnail_content"]).findings
    assert (overall.level, overall.n) == ("not_estimable", 0)


def test_features_agree_with_their_definition() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    feature = content_features(image)
    blocks = image.reshape(8, 10, 8, 10, 3).mean(axis=(1, 3)) / 255
    assert feature[:192] == pytest.approx(blocks.ravel(), abs=1 / 255 + 1e-9)
    histogram = np.histogramdd(image.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)[0] / 6400
    assert feature[192:] == pytest.approx(np.sqrt(histogram.ravel()))
