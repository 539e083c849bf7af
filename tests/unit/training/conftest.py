"""A small dataset that can be learnt, smooth images against images with a grid, and the words of a fast training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest
from synth.images import checkered_image, smooth_image


@pytest.fixture(scope="session")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 train, 12 val and 12 test images of 64 px, half of them generated."""
    root = tmp_path_factory.mktemp("learnable")
    rows = []
    for index in range(48):
        label = index % 2
        pixels = (checkered_image if label else smooth_image)(index, 64, 64)
        data = encode_image(pixels, "png", None)
        image_id = sha256_bytes(data)
        path = f"images/{image_id}.png"
        write_bytes(root / path, data)
        rows.append(
            {
                "image_id": image_id,
                "path": path,
                "label": label,
                "generator": "grid-1" if label else "camera",
                "paradigm": "diffusion" if label else "camera",
                "decoder": "unknown",
                "source": "synthetic",
                "source_id": f"scene:{index}",
                "width_px": 64,
                "height_px": 64,
                "codec": "png",
                "licence": "CC0-1.0",
                "split": "train" if index < 24 else "val" if index < 36 else "test",
                "recipe": "learnable",
            }
        )
    Manifest.from_rows(rows, root).write()
    return root


@pytest.fixture
def words(learnable: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Return the arguments of a training that takes a second: a random tiny backbone, 64 px."""

    def make(out: str = "run", epochs: int = 3, detector: str = "frozen_probe", **options: object) -> list[str]:
        settings = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}
        pairs = {
            "run.out": tmp_path / out,
            "data.dataset": learnable,
            "data.batch_size": 8,
            "model.detector": detector,
            "model.detector_args": str(settings).replace("None", "null").replace("'", '"'),
            "model.optimizer.lr": 0.05,
            "trainer.max_epochs": epochs,
            "trainer.accelerator": "cpu",
        } | {name.replace("__", "."): value for name, value in options.items()}
        return [word for name, value in pairs.items() for word in (f"--{name}", str(value))]

    return make
