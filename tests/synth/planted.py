"""A planned dataset with defects that a test plants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.image_io import encode_image, read_facts
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.phash import phash
from forgery_det.transforms.preprocess import resize

Row = dict[str, Any]
WORDS = [f"word{number}" for number in range(500)]
PLANNED = ("label", "generator", "paradigm", "source_id", "split", "content_id", "prompt_id", "prompt")
Plant = Callable[[Row], None]


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """1/f noise in colour: the same distribution for both classes, a different picture for each seed."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.normal(size=(3, height, width))) / frequency
    image = np.fft.ifft2(spectrum).real
    image = 128 + image * 40 / image.std()
    return np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)


class Planter:
    """A clean seeded dataset of planned images; tests change the plan, then `build` it.

    Each plan entry: seed, height, width, codec, quality, the manifest columns, and what is done to the picture: tint
    (added to the upper half), stripes (lines of the finest structure along "x" or "y"), mirror, crop (the share of each
    side that stays, cut from the lower right and resized back).
    """

    def __init__(self, root: Path, n: int = 48) -> None:
        self.root = root
        self.plan: list[Row] = []
        for index in range(n):
            label = index % 2
            generator = ("sdxl", "flux")[index // 2 % 2] if label else "camera"
            self.plan.append(
                {
                    "seed": index,
                    "height": 40,
                    "width": 48,
                    "codec": "jpeg",
                    "quality": 90,
                    "tint": 0,
                    "label": label,
                    "generator": generator,
                    "paradigm": "diffusion" if label else "camera",
                    # One in three real images shares its source with another one.
                    "source_id": f"{generator}-{index if index % 6 else index // 12 * 12}",
                    "split": ("train", "train", "val", "test")[index // 12 % 4],
                    "content_id": None,
                    "stripes": None,
                    "mirror": False,
                    "crop": 1.0,
                    "prompt_id": f"prompt-{index}" if label else None,
                    "prompt": " ".join(np.random.default_rng(index).choice(WORDS, 8)) if label else None,
                }
            )

    def of_label(self, label: int) -> list[Row]:
        return [entry for entry in self.plan if entry["label"] == label]

    def build(self) -> Path:
        rows = [self._write(entry) for entry in self.plan]
        Manifest.from_rows(rows, self.root).write()
        return self.root

    def _write(self, entry: Row) -> Row:
        image = picture(entry["seed"], entry["height"], entry["width"]).astype(np.int64)
        image[: len(image) // 2] += entry["tint"]
        if entry["stripes"]:
            lines = np.where(np.arange(max(image.shape)) // 2 % 2, 8, -8)
            length = image.shape[1] if entry["stripes"] == "x" else image.shape[0]
            image += lines[:length][None, :, None] if entry["stripes"] == "x" else lines[:length][:, None, None]
        image_HWC = np.clip(image, 0, 255).astype(np.uint8)
        if entry["mirror"]:
            image_HWC = np.ascontiguousarray(image_HWC[:, ::-1])
        height, width = image_HWC.shape[:2]
        piece = image_HWC[round(height * (1 - entry["crop"])) :, round(width * (1 - entry["crop"])) :]
        image_HWC = resize(piece, width, height, "lanczos")
        data = encode_image(image_HWC, entry["codec"], entry["quality"])
        image_id, facts = sha256_bytes(data), read_facts(data)
        path = f"images/{image_id[:2]}/{image_id}.{entry['codec']}"
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)
        return {
            "image_id": image_id,
            "path": path,
            "decoder": "vae" if entry["label"] else "unknown",
            "source": "planted",
            "width_px": facts.width_px,
            "height_px": facts.height_px,
            "codec": facts.codec,
            "jpeg_quality": facts.jpeg_quality,
            "phash": phash(image_HWC),
            "licence": "CC0-1.0",
            "recipe": "planted",
        } | {name: entry[name] for name in PLANNED}
