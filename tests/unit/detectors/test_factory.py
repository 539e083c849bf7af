from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from forgery_det.core.errors import WeightsError
from forgery_det.detectors import create_detector
from forgery_det.detectors.frozen_probe import FrozenProbe
from forgery_det.detectors.timm_classifier import TimmClassifier

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return create_detector("timm_classifier", **TimmClassifier.tiny)


def test_a_new_detector_is_in_evaluation_mode(classifier):
    assert not any(module.training for module in classifier.modules())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nest", ["", "state_dict", "model"])
def test_nested_and_prefixed_files_load(tmp_path, classifier, prefix, nest):
    state = {prefix + key: value for key, value in classifier.state_dict().items()}
    torch.save({"epoch": 1, nest: state} if nest else state, tmp_path / "x.pth")
    other = create_detector("timm_classifier", weights=tmp_path / "x.pth", **TimmClassifier.tiny)
    assert other.logit(IMAGE) == classifier.logit(IMAGE)


def test_safetensors_load(tmp_path, classifier):
    save_file(classifier.state_dict(), tmp_path / "x.safetensors")
    other = create_detector("timm_classifier", weights=tmp_path / "x.safetensors", **TimmClassifier.tiny)
    assert other.logit(IMAGE) == classifier.logit(IMAGE)


def test_a_whole_file_needs_no_published_backbone(tmp_path, classifier):
    torch.save(classifier.state_dict(), tmp_path / "x.pth")
    # The package has no weights of this backbone: asking for them would fail.
    settings = dict(TimmClassifier.tiny) | {"backbone_weights": "package"}
    other = create_detector("timm_classifier", weights=tmp_path / "x.pth", **settings)
    assert other.logit(IMAGE) == classifier.logit(IMAGE)


def test_timms_own_names_load(tmp_path, classifier):
    torch.save(classifier.backbone.state_dict(), tmp_path / "x.pth")
    other = create_detector("timm_classifier", weights=tmp_path / "x.pth", **TimmClassifier.tiny)
    assert other.logit(IMAGE) == classifier.logit(IMAGE)


def test_a_head_alone_goes_on_the_backbone_that_is_asked_for(tmp_path):
    torch.manual_seed(0)
    probe = create_detector("frozen_probe", **FrozenProbe.tiny)
    head = {f"head.{key}": torch.full_like(value, 0.5) for key, value in probe.head.state_dict().items()}
    save_file(head, tmp_path / "head.safetensors")
    torch.manual_seed(0)
    loaded = create_detector("frozen_probe", weights=tmp_path / "head.safetensors", **FrozenProbe.tiny)
    torch.testing.assert_close(loaded.backbone.state_dict(), probe.backbone.state_dict())
    assert torch.equal(loaded.head.linear.weight, torch.full_like(loaded.head.linear.weight, 0.5))


def test_what_does_not_fit_names_the_file(tmp_path, classifier):
    state = dict(classifier.state_dict())
    state["backbone.extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"unexpected: backbone\.extra.*in .*x\.pth"):
        create_detector("timm_classifier", weights=tmp_path / "x.pth", **TimmClassifier.tiny)


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(WeightsError, match="Expected a weights file, got nothing at"):
        create_detector("frozen_probe", weights=tmp_path / "x.ckpt")
