"""One hand-made bundle a session, and the application around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgery_det.serving.http import gate
from forgery_det.serving.predictor import Predictor
from synth.service import brightness_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle that measures brightness."""
    return brightness_bundle(tmp_path_factory.mktemp("brightness"))


@pytest.fixture(scope="session")
def predictor(bundle: Path) -> Predictor:
    """The loaded bundle."""
    return Predictor(bundle, threads=1)


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Throw away the rest of a refused body for a moment only."""
    monkeypatch.setattr(gate, "LINGER_S", 0.05)
