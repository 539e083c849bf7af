"""Presets of `frozen_probe`: what a second `--config` changes, on shapes alone, so that nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from forgery_det.core.progress import silent
from forgery_det.detectors.costs import published_size
from forgery_det.training.fit import FitCLI
from forgery_det.training.quiet import quiet_lightning

CONFIGS = Path(__file__).parents[3] / "configs"
PRESETS = {
    "dinov3": ("dinov3", 256, 1024, (0.485, 0.456, 0.406)),
    "metaclip2": ("metaclip2_worldwide", 224, 1280, (0.48145466, 0.4578275, 0.40821073)),
    "perception_encoder": ("vit_pe_core", 336, 1024, (0.5, 0.5, 0.5)),
    "siglip2": ("siglip", 378, 1152, (0.5, 0.5, 0.5)),
}
"""Preset -> part of the backbone's name, side of the input, features, mean of its normalisation."""


def test_every_preset_is_tested():
    assert {path.stem for path in (CONFIGS / "preset").glob("*.yaml")} == set(PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_linear_probe_on_its_backbone(name, tmp_path, monkeypatch):
    monkeypatch.setattr(FitCLI, "instantiate_classes", lambda _: None)
    files = [CONFIGS / "detector" / "frozen_probe.yaml", CONFIGS / "preset" / f"{name}.yaml"]
    words = [word for file in files for word in ("--config", str(file))]
    with quiet_lightning():
        config = FitCLI([*words, "--run.out", str(tmp_path), "--data.dataset", str(tmp_path)], silent).config
    assert (config.model.detector, config.trainer.max_epochs, config.data.augment) == ("frozen_probe", 2, None)
    settings = dict(config.model.detector_args)
    family, side_px, n_features, mean = PRESETS[name]
    assert family in settings["backbone"]
    assert timm.is_model_pretrained(settings["backbone"])
    assert settings["backbone_weights"] == "timm"

    detector = published_size("frozen_probe", "meta", **settings)
    with torch.device("meta"):
        assert detector.features(torch.zeros(1, 3, side_px, side_px)).shape == (1, n_features)
    assert detector.preprocess.to_json()[-1]["height_px"] == side_px
    assert {key for key, value in detector.named_parameters() if value.requires_grad} == {
        "head.linear.weight",
        "head.linear.bias",
    }
    assert timm.get_pretrained_cfg(settings["backbone"]).mean == mean
