from __future__ import annotations

import subprocess
import sys

import pytest

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.detectors import DETECTORS, create_detector, list_detectors
from forgery_det.detectors.registry import build_detector


def test_listing_imports_no_torch():
    code = (
        "import sys, forgery_det, forgery_det.detectors as d\n"
        "assert 'frozen_probe' in d.list_detectors() and 'frozen_probe' in forgery_det.list_detectors()\n"
        "heavy = {'torch', 'timm', 'lightning', 'albumentations', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_public_names_resolve():
    import forgery_det.detectors as package

    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'create'"):
        _ = package.create


def test_names_are_sorted_and_known():
    assert list_detectors() == tuple(sorted(DETECTORS)) == DETECTORS.names()


def test_unknown_detector_is_explained():
    with pytest.raises(UnknownNameError, match="Unknown detector 'frozen_prob': did you mean 'frozen_probe'"):
        create_detector("frozen_prob")


def test_unknown_setting_is_explained():
    with pytest.raises(ConfigError, match="Unknown setting 'bakbone' of frozen_probe: did you mean 'backbone'"):
        create_detector("frozen_probe", bakbone="test_resnet")


def test_a_detector_remembers_its_settings_with_the_defaults():
    detector = build_detector("timm_classifier", {"backbone": "test_resnet", "backbone_weights": None})
    assert detector.arguments == {
        "backbone": "test_resnet",
        "backbone_weights": None,
        "freeze": "none",
        "image_size_px": None,
        "geometry": "resize",
    }
