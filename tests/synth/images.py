"""Seeded fake images, folders, wheels and recipes for tests; equal arguments give equal bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.image_io import encode_image


def smooth_image(seed: int, width_px: int = 96, height_px: int = 80) -> NDArray[np.uint8]:
    """A stand-in for a photograph: coloured waves of low frequency and fine sensor noise. Shape (H, W, 3)."""
    rng = np.random.default_rng([seed, 0])
    y, x = np.mgrid[0:height_px, 0:width_px] / 64
    waves = np.zeros((height_px, width_px, 3))
    for _ in range(6):
        frequency, phase, colour = rng.uniform(-6, 6, 2), rng.uniform(0, 6.28), rng.uniform(-1, 1, 3)
        waves += np.sin(frequency[0] * x + frequency[1] * y + phase)[:, :, None] * colour
    noisy = 128 + 28 * waves + rng.normal(0, 4, waves.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def checkered_image(seed: int, width_px: int = 96, height_px: int = 80) -> NDArray[np.uint8]:
    """A stand-in for a generated image: the same waves under a grid of period 4, as a bad upsampler leaves it."""
    image_HWC = smooth_image(seed + 1_000_003, width_px, height_px).astype(np.int64)
    y, x = np.mgrid[0:height_px, 0:width_px]
    grid = np.where((x // 2 + y // 2) % 2 == 0, 14, -14)
    return np.clip(image_HWC + grid[:, :, None], 0, 255).astype(np.uint8)


def write_images(
    folder: Path, count: int, *, generated: bool, seed: int = 0, codec: str = "jpeg", width_px: int = 96
) -> list[Path]:
    """Write `count` images called `00000.<codec>` and so on into `folder`, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    make = checkered_image if generated else smooth_image
    paths = []
    for index in range(count):
        path = folder / f"{index:05d}.{codec}"
        image_HWC = make(seed * 100_000 + index, width_px, width_px - 16)
        path.write_bytes(encode_image(image_HWC, codec, None if codec == "png" else 92))
        paths.append(path)
    return paths


def write_wheel(path: Path, members: dict[str, bytes]) -> dict[str, str]:
    """Write a wheel with the given members; return the keys of a recipe that pin it."""
    name, version = path.name.split("-")[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    tags = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = f"{name}-{version}.dist-info"
    everything = members | {
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": tags.encode(),
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in everything.items():
            wheel.writestr(zipfile.ZipInfo(member, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return {"package": name, "version": version, "file": path.name, "sha256": sha256_file(path)}


def recipe_dict(sources: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """The smallest useful recipe: 48 px, WebP, no perceptual stage, hashed splits."""
    return {
        "name": "synthetic",
        "description": "Seeded images for tests.",
        "licence": "CC0",
        "sources": sources,
        "filter": {"min_side_px": 32},
        "align": {"short_side_px": 48, "max_side_px": 64, "codec": "webp", "quality": 90},
        "dedup": {"phash_distance": None},
        "split": {"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}, "salt": "tests"},
    } | changes


def write_recipe(path: Path, sources: list[dict[str, Any]], **changes: Any) -> Path:
    """Write `recipe_dict` as YAML and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe_dict(sources, **changes), sort_keys=False), encoding="utf-8")
    return path


def folder_sources(root: Path) -> list[dict[str, Any]]:
    """Two folder sources, `<root>/real` and `<root>/fake`."""
    return [
        {"id": "photos", "kind": "folder", "root": str(root / "real"), "label": "real", "licence": "CC0"},
        {
            "id": "fakes",
            "kind": "folder",
            "root": str(root / "fake"),
            "label": "generated",
            "licence": "CC0",
            "fields": {"generator": "checker-1", "paradigm": "gan", "decoder": "pixel", "release_date": "2020-01-31"},
        },
    ]


def tree(folder: Path, *, without: tuple[str, ...] = (".work",)) -> dict[str, bytes]:
    """Relative path -> bytes of all files below `folder`, leaving out the named top-level folders."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    relative = {path.relative_to(folder): path for path in files}
    return {str(name): path.read_bytes() for name, path in relative.items() if name.parts[0] not in without}
