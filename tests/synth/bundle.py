"""A dataset, a trained and calibrated checkpoint, and a bundle, all tiny, seeded and real: built once a session.

folder/dataset/            a manifest with 64 seeded images in train, val and test
folder/model.ckpt          frozen_probe on timm's test_resnet, 64 px, head fitted on train, calibrated on val
folder/bundle/             onnx and onnx_int8, written by `export`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from forgery_det.core.artefacts import sha256_bytes, write_bytes
from forgery_det.core.image_io import decode_file, encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.detectors import create_detector
from forgery_det.detectors.base import FrozenFeatures, to_tensor
from forgery_det.detectors.checkpoint import save_checkpoint
from forgery_det.metrics.calibration import fit_temperature
from forgery_det.metrics.thresholded import OPERATING_POINT_RULES
from synth.images import checkered_image, smooth_image

SPLITS = (("train", 14), ("val", 12), ("test", 6))
"""Split and images of each class in it."""


def make_bundle(folder: Path, formats: Sequence[str] = ("onnx", "onnx_int8")) -> Path:
    """Build everything below `folder` and return the bundle's folder; what is there already is kept."""
    from forgery_det.export.run import export, is_finished

    bundle = folder / "bundle"
    if not is_finished(bundle):
        export(make_checkpoint(folder), bundle, dataset=folder / "dataset", formats=formats)
    return bundle


def make_checkpoint(folder: Path, detector_name: str = "frozen_probe", **settings: Any) -> Path:
    """Build `folder/dataset` and `folder/model.ckpt`, and return the checkpoint."""
    path = folder / "model.ckpt"
    manifest = make_dataset(folder / "dataset")
    if path.is_file():
        return path
    settings = settings or {"backbone": "test_resnet", "backbone_weights": None, "image_size_px": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = create_detector(detector_name, **settings)
    if isinstance(detector, FrozenFeatures):
        _fit_head(detector, manifest)
    label_N, image_NCHW = _images(detector, manifest, "val")
    with torch.no_grad():
        logit_N = detector(image_NCHW).double().numpy()
    save_checkpoint(
        path,
        detector,
        temperature=fit_temperature(label_N, logit_N).temperature,
        operating_points={name: rule(label_N, logit_N) for name, rule in OPERATING_POINT_RULES.items()},
        training={
            "dataset": "synthetic", "manifest_hash": manifest.digest(), "generators": ["checker-1"],
            "n_train": 28, "n_val": 24, "n_val_real": 12,
        },
    )  # fmt: skip
    return path


def make_dataset(root: Path) -> Manifest:
    """Write the images and the manifest, unless they are there."""
    if (root / "manifest.parquet").is_file():
        return Manifest.load(root)
    rows = []
    for number, (split, n) in enumerate(SPLITS):
        for index in range(n):
            seed = 1000 * number + index
            # Sizes differ, portrait and landscape, so that geometry has something to do.
            size = (96 + 8 * (index % 4), 120 - 12 * (index % 3))
            rows.append(_row(root, smooth_image(seed, *size), split, f"{split}-{index}", label=0))
            rows.append(_row(root, checkered_image(seed, *size), split, f"{split}-fake-{index}", label=1))
    manifest = Manifest.from_rows(rows, root)
    manifest.write()
    return manifest


def _row(root: Path, image_HWC: np.ndarray, split: str, source_id: str, *, label: int) -> dict[str, Any]:
    codec = "jpeg" if label == 0 else "png"
    data = encode_image(image_HWC, codec, 92 if codec == "jpeg" else None)
    image_id = sha256_bytes(data)
    path = f"images/{image_id[:2]}/{image_id}.{codec}"
    write_bytes(root / path, data)
    kind = ("camera", "camera", "unknown") if label == 0 else ("checker-1", "gan", "pixel")
    return {
        "image_id": image_id, "path": path, "label": label, "generator": kind[0], "paradigm": kind[1],
        "decoder": kind[2], "source": "photos" if label == 0 else "synthetic", "source_id": source_id,
        "width_px": image_HWC.shape[1], "height_px": image_HWC.shape[0], "codec": codec, "licence": "CC0-1.0",
        "split": split, "recipe": "synthetic",
    }  # fmt: skip


def _images(detector: Any, manifest: Manifest, split: str) -> tuple[np.ndarray, Tensor]:
    rows = manifest.frame.filter(pl.col("split") == split)
    views = [to_tensor(detector.preprocess(decode_file(manifest.image_file(path)).image_HWC)) for path in rows["path"]]
    return rows["label"].to_numpy(), torch.stack(views)


def _fit_head(detector: FrozenFeatures, manifest: Manifest) -> None:
    """A ridge regression in closed form: deterministic, and good enough to tell the classes apart, not perfectly."""
    label_N, image_NCHW = _images(detector, manifest, "train")
    head: Any = detector.head
    feature_ND = detector.features(image_NCHW)
    detector.fit_feature_scaling(feature_ND)
    scaled_ND = ((feature_ND - head.mean_D) / head.spread_D).double()
    target_N = torch.from_numpy(np.where(label_N == 1, 2.0, -2.0))
    gram_DD = scaled_ND.T @ scaled_ND + 50.0 * torch.eye(scaled_ND.shape[1], dtype=torch.float64)
    with torch.no_grad():
        head.linear.weight.copy_(torch.linalg.solve(gram_DD, scaled_ND.T @ target_N)[None].float())
