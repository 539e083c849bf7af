"""Seeded 24 px datasets for the data tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest


def row(data: bytes, path: str, label: int, **changes: Any) -> dict[str, Any]:
    values = {
        "image_id": sha256_bytes(data),
        "path": path,
        "label": label,
        "generator": "sd-1" if label else "camera",
        "paradigm": "diffusion" if label else "camera",
        "decoder": "vae" if label else "unknown",
        "source": "fakes" if label else "photos",
        "source_id": path,
        "width_px": 24,
        "height_px": 24,
        "codec": "png",
        "licence": "CC0-1.0",
        "split": "train",
        "recipe": "test",
    }
    return values | changes


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Manifest]:
    """Write a dataset folder: one image for each label given, and keyword lists for other columns."""

    def make(labels: list[int], size_px: int = 24, **columns: list[Any]) -> Manifest:
        rows = []
        for index, label in enumerate(labels):
            pixels = np.random.default_rng(index).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
            data = encode_image(pixels, "png", None)
            path = f"images/{index:03d}.png"
            write_bytes(tmp_path / path, data)
            rows.append(row(data, path, label, **{name: values[index] for name, values in columns.items()}))
        manifest = Manifest.from_rows(rows, tmp_path)
        manifest.write()
        return manifest

    return make
