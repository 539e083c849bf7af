"""A small dataset that can be learnt, smooth images against images with a grid, and the words of a fast training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.training import fit
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


def training_words(
    root: Path, dataset: Path, out: str = "run", epochs: int = 3, detector: str = "frozen_probe", **options: object
) -> list[str]:
    """The arguments of a training that takes a second: a random tiny backbone, 64 px."""
    settings = {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}
    pairs = {
        "run.out": root / out,
        "data.dataset": dataset,
        "data.batch_size": 8,
        "model.detector": detector,
        "model.detector_args": str(settings).replace("None", "null").replace("'", '"'),
        "model.optimizer.lr": 0.05,
        "trainer.max_epochs": epochs,
        "trainer.accelerator": "cpu",
    } | {name.replace("__", "."): value for name, value in options.items()}
    return [word for name, value in pairs.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def words(learnable: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """`training_words` of the small dataset, in the test's folder."""
    return partial(training_words, tmp_path, learnable)


RIGID = '{"backbone": "test_resnet", "backbone_weights": null, "image_size_px": 32}'


@pytest.fixture(scope="session")
def members(learnable: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of a head on features, a network that was tuned, and a detector with nothing to learn."""
    words = partial(training_words, tmp_path_factory.mktemp("members"), learnable)
    return [
        fit(words("probe", epochs=8)).checkpoint,
        fit(words("classifier", epochs=2, detector="timm_classifier", model__optimizer__lr=0.002)).checkpoint,
        fit(words("rigid", detector="rigid", model__detector_args=RIGID)).checkpoint,
    ]
