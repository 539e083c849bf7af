"""Every registered detector through the command line: train with its own loss, calibrate, score from the checkpoint."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forgery_det.cli import main
from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import silent
from forgery_det.detectors import DETECTORS, list_detectors
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.training.fit import FitCLI
from forgery_det.training.quiet import quiet_lightning
from synth.images import checkered_image, smooth_image

CONFIGS = Path(__file__).parents[2] / "configs" / "detector"
LEARN_NOTHING = ("aeroblade", "rigid", "warpad")
TRAINED = [name for name in list_detectors() if name != "ensemble"]
FAST = ("effort", "frozen_probe", "npr", "rigid", "rine")
"""One of each way to train: a whole network, a part, a head, adapters, nothing. The others are slow tests."""
SIDE_PX = 72


def recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))


def plain(value: Any) -> Any:
    """Tuples as lists, for JSON on a command line."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images to train on, eight to calibrate on; small, because what is tested is that each step works."""
    root = tmp_path_factory.mktemp("every")
    rows = []
    for index in range(12):
        label = index % 2
        data = encode_image((checkered_image if label else smooth_image)(index, SIDE_PX, SIDE_PX), "png", None)
        image_id = sha256_bytes(data)
        write_bytes(root / f"images/{image_id}.png", data)
        paradigm, generator = ("diffusion", "grid-1") if label else ("camera", "camera")
        rows.append(
            {
                "image_id": image_id,
                "path": f"images/{image_id}.png",
                "label": label,
                "generator": generator,
                "paradigm": paradigm,
                "decoder": "unknown",
                "source": "synthetic",
                "source_id": f"scene:{index}",
                "width_px": SIDE_PX,
                "height_px": SIDE_PX,
                "codec": "png",
                "licence": "CC0-1.0",
                "split": "train" if index < 4 else "val",
                "recipe": "every",
            }
        )
    Manifest.from_rows(rows, root).write()
    return root


def training(name: str, dataset: Path, out: Path) -> list[str]:
    """The words of one step with the loss of the detector's configuration."""
    model = recipe(name)["model"]
    values = {
        "run.out": out,
        "data.dataset": dataset,
        "data.batch_size": 4,
        "model.detector": name,
        "model.detector_args": json.dumps(plain(dict(DETECTORS.get(name).tiny))),
        "model.loss": model.get("loss", "bce"),
        "model.loss_args": json.dumps(model.get("loss_args", {})),
        "seed_everything": 1,
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
    }
    return ["fit", *(word for key, value in values.items() for word in (f"--{key}", str(value)))]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in TRAINED]
)
def test_it_trains_calibrates_and_scores(
    name: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(training(name, dataset, tmp_path)) == 0
    told = capsys.readouterr().out
    assert (f"Nothing in {name} learns" in told) == (name in LEARN_NOTHING)
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    facts = load_checkpoint(checkpoint).facts
    assert facts.detector == ("ensemble" if name in LEARN_NOTHING else name)
    assert facts.temperature is not None
    assert facts.operating_points is not None
    assert facts.training["n_train"] == (0 if name in LEARN_NOTHING else 4)
    record = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))["facts"]
    assert (record["temperature"], record["n_val"]) == (facts.temperature, 8)
    if name not in LEARN_NOTHING:
        (metrics,) = (tmp_path / "logs").rglob("metrics.csv")
        logged = {
            key: value
            for row in csv.DictReader(io.StringIO(metrics.read_text()))
            for key, value in row.items()
            if value
        }
        assert np.isfinite([float(logged[key]) for key in ("train/loss", "val/loss", "val/auroc")]).all()
        terms = {key for key in logged if key.startswith("train/")} - {"train/loss"}
        assert bool(terms) == ("loss" in recipe(name)["model"])
    images = sorted(map(str, dataset.glob("images/*.png")))[:2]
    assert main(["predict", str(checkpoint), *images, "--format", "csv", "--device", "cpu"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert len({row["logit"] for row in rows}) == len(images)


def test_an_ensemble_is_sent_to_its_own_command(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(training("ensemble", dataset, tmp_path)) == 2
    assert "forgery-det ensemble CHECKPOINT CHECKPOINT" in capsys.readouterr().err
    assert not (tmp_path / "fit.json").exists()


@pytest.mark.parametrize("name", list_detectors())
def test_its_configuration_is_one_that_fit_accepts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Parsed with every default of the real command; nothing is built, so nothing is downloaded.
    monkeypatch.setattr(FitCLI, "instantiate_classes", lambda _: None)
    words = ["--config", str(CONFIGS / f"{name}.yaml"), "--run.out", str(tmp_path), "--data.dataset", str(tmp_path)]
    with quiet_lightning():
        config = FitCLI(words, silent).config
    wanted = recipe(name)
    assert config.model.detector == name
    assert config.model.detector_args == wanted["model"]["detector_args"]
    assert config.data.batch_size == wanted.get("data", {}).get("batch_size", 32)
    assert config.model.optimizer.lr == wanted["model"].get("optimizer", {}).get("lr", 1e-3)
