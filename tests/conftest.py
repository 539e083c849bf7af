"""Fixtures that every test folder may use; the helpers behind them are in `synth.images`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth.bundle import make_bundle
from synth.images import folder_sources, write_images, write_recipe


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with `real/` and `fake/`, twelve seeded images each."""
    root = tmp_path / "images"
    write_images(root / "real", 12, generated=False)
    write_images(root / "fake", 12, generated=True, codec="png")
    return root


@pytest.fixture
def folder_recipe(image_folder: Path, tmp_path: Path) -> Path:
    """A recipe over `image_folder`."""
    return write_recipe(tmp_path / "recipe" / "recipe.yaml", folder_sources(image_folder))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle (`synth.bundle`), beside its `dataset/` and `model.ckpt`. Shared, so do not change the files."""
    return make_bundle(tmp_path_factory.mktemp("tiny_bundle"))


@pytest.fixture(autouse=True)
def no_handler_for_ended_children() -> Iterator[None]:
    """Take back the handler of SIGCHLD that a DataLoader with workers leaves in the process, for the tests after it."""
    yield
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
