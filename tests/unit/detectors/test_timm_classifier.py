from __future__ import annotations

import pytest
import timm
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.timm_classifier import TimmClassifier


def image(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_the_logit_is_timms_output(name):
    detector = TimmClassifier(name, backbone_weights=None, image_size_px=64).eval()
    options = {"img_size": 64} if name == "test_vit" else {}
    reference = timm.create_model(name, num_classes=1, **options).eval()
    reference.load_state_dict(detector.backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(detector(image()), reference(detector.normalise(image()))[:, 0])


def test_everything_learns_by_default():
    detector = TimmClassifier("test_resnet", backbone_weights=None).train()
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert all(module.training for module in detector.modules())


def test_a_frozen_backbone_learns_its_last_layer_alone():
    detector = TimmClassifier("test_resnet", backbone_weights=None, freeze="backbone").train()
    learning = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert learning == {"backbone.fc.weight", "backbone.fc.bias"}
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    detector(image()).sum().backward()
    torch.testing.assert_close(dict(detector.state_dict()), before, rtol=0, atol=0)


def test_unknown_freeze_is_explained():
    with pytest.raises(ConfigError, match="Unknown freeze 'backbon': did you mean 'backbone'"):
        TimmClassifier("test_resnet", backbone_weights=None, freeze="backbon")


def test_the_default_starts_from_the_packaged_weights():
    detector, random = TimmClassifier(), TimmClassifier(backbone_weights=None)
    assert detector.backbone.conv_stem.weight.shape == random.backbone.conv_stem.weight.shape
    # Trained filters are far from the small random ones; batch statistics are no longer 0 and 1.
    assert detector.backbone.bn1.running_var.std() > 0
    assert random.backbone.bn1.running_var.std() == 0
    assert detector.backbone.classifier.out_features == 1
