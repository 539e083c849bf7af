"""Seeded 64 px dataset, and a detector whose logit can be computed by hand: twelve times (mean red - 1/2)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.manifest import Manifest
from forgery_det.detectors.base import Detector, DetectorCard
from forgery_det.detectors.checkpoint import CheckpointFacts, LoadedDetector
from forgery_det.transforms.preprocess import Preprocess, ResizeExact

SIZE_PX = 16
GENERATORS = {
    "sd-1": ("diffusion", "vae", 0.62, 12),
    "flux-1": ("diffusion", "vae", 0.66, 10),
    "janus-1": ("mllm", "vq", 0.58, 9),
    "rare-1": ("gan", "pixel", 0.60, 2),
}


class MeanRed(Detector):
    """Logit = 12 (mean red - 1/2); counts the images it saw."""

    card: ClassVar[DetectorCard] = DetectorCard("mean_red", "none", 2026, "how red an image is")

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess((ResizeExact(SIZE_PX, SIZE_PX, "box"),))
        self.slope = nn.Parameter(torch.tensor(12.0), requires_grad=False)
        self.n_seen = 0

    def forward(self, image_BCHW: Tensor) -> Tensor:
        self.n_seen += len(image_BCHW)
        return self.slope * (image_BCHW[:, 0].mean(dim=(1, 2)) - 0.5)


def image_bytes(red: float, rng: np.random.Generator) -> bytes:
    """A 64 px PNG whose mean red is near `red`; all else is noise."""
    pixels = rng.integers(0, 256, (64, 64, 3))
    pixels[..., 0] = np.clip(red * 255 + rng.normal(0, 20, (64, 64)), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def expected_logit(path: Path) -> float:
    """The detector's logit in plain numpy: means of four columns, then of four rows, each rounded to whole numbers."""
    red = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)[..., 0]
    columns = np.floor(red.reshape(64, 16, 4).mean(axis=2) + 0.5)
    blocks = np.floor(columns.reshape(16, 4, 16).mean(axis=1) + 0.5)
    return float(12 * (blocks.mean() / 255 - 0.5))


def _row(data: bytes, root: Path, split: str, **values: Any) -> dict[str, Any]:
    image_id = sha256_bytes(data)
    path = f"images/{image_id[:2]}/{image_id}.png"
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
    return {
        "image_id": image_id, "path": path, "width_px": 64, "height_px": 64, "codec": "png", "licence": "CC0-1.0",
        "split": split, "recipe": "synthetic", **values,
    }  # fmt: skip


def make_dataset(root: Path) -> Manifest:
    """Real photographs with two crops each, four generators (two of them only in test), prompts for some."""
    rng = np.random.default_rng(5)
    rows = []
    for split, photos in (("train", 4), ("val", 14), ("test", 16)):
        for photo in range(photos):
            red = float(rng.normal(0.47, 0.07))
            for _ in range(2):
                rows.append(_row(
                    image_bytes(red, rng), root, split, label=0, generator="camera", paradigm="camera",
                    decoder="unknown", source="alps" if photo % 3 else "city", source_id=f"{split}-photo-{photo}",
                ))  # fmt: skip
        for name, (paradigm, decoder, red, count) in GENERATORS.items():
            if split != "test" and name in ("janus-1", "rare-1"):
                continue
            for index in range(count if split != "train" else 2):
                words = (5, 30, 90, 0)[index % 4]
                rows.append(_row(
                    image_bytes(float(rng.normal(red, 0.08)), rng), root, split, label=1, generator=name,
                    paradigm=paradigm, decoder=decoder, source="synthetic", source_id=f"{split}-{name}-{index}",
                    prompt="word " * words if words else None, prompt_words=words or None,
                ))  # fmt: skip
    manifest = Manifest.from_rows(rows, root)
    manifest.write()
    return manifest


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Shared, so do not change the files."""
    return make_dataset(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def scored(manifest: Manifest) -> pl.DataFrame:
    """Manifest rows with the logits that the detector must give, computed without torch."""
    logit = [expected_logit(manifest.image_file(path)) for path in manifest.frame["path"]]
    score = 1 / (1 + np.exp(-np.asarray(logit)))
    return manifest.frame.with_columns(pl.Series("logit", logit), pl.Series("score", score))


@pytest.fixture(scope="session")
def judged(scored: pl.DataFrame) -> pl.DataFrame:
    return scored.filter(pl.col("split") == "test")


MakeLoaded = Callable[..., LoadedDetector]


@pytest.fixture
def make_loaded() -> MakeLoaded:
    """Build what `load_checkpoint` would return for the detector above."""

    def make(
        temperature: float | None = None,
        operating_points: dict[str, float] | None = None,
        training: dict[str, Any] | None = None,
    ) -> LoadedDetector:
        detector = MeanRed().eval()
        facts = CheckpointFacts("mean_red", {}, detector.preprocess, temperature, operating_points, training or {})
        return LoadedDetector(detector, facts)

    return make
