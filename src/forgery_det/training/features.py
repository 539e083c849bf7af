"""Features of a frozen backbone, computed once and kept on disk, so that training a head takes seconds.

A frozen backbone in evaluation mode gives the same features in every epoch, as long as nothing augments the images.
They are stored in parts of `PART_SIZE` images, each named by the hash of everything its content depends on (backbone
weights, preprocessing, the images in order), written atomically: a killed run keeps the parts it finished, a changed
backbone or dataset never meets an old part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from forgery_det.core.artefacts import atomic_path, canonical_json, sha256_bytes
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.data.batches import iterate_batches
from forgery_det.data.dataset import BadFile
from forgery_det.detectors.base import FrozenFeatures

PART_SIZE = 256
"""Images in one part: what a kill can cost."""


class FeatureBatch(NamedTuple):
    """A batch of precomputed features; the counterpart of `data.Batch`."""

    feature: Tensor
    label_B: Tensor
    image_id: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of a split, in the manifest's order.

    Args:
        feature: `feature_ND` (or `feature_NTD` for token features), float32.
        label_N: float32, 1 = generated.
        image_id: One a row.
        bad: Files that could not be read; they have no row.
    """

    feature: Tensor
    label_N: Tensor
    image_id: tuple[str, ...]
    bad: tuple[BadFile, ...]

    def only(self, wanted: frozenset[str]) -> FeatureTable:
        """Return the rows and bad files whose `image_id` is wanted, in order."""
        rows = [row for row, image_id in enumerate(self.image_id) if image_id in wanted]
        return FeatureTable(
            self.feature[rows],
            self.label_N[rows],
            tuple(self.image_id[row] for row in rows),
            tuple(file for file in self.bad if file.image_id in wanted),
        )


def compute_features(
    detector: FrozenFeatures,
    manifest: Manifest,
    folder: Path,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    device: torch.device | None = None,
    stage: str = "features",
    progress: ProgressSink = silent,
) -> FeatureTable:
    """Return the features of all images of `manifest`, reading those parts that exist in `folder` already.

    Args:
        detector: Its `features` and `preprocess` are used; put into evaluation mode.
        manifest: The images, usually one split.
        folder: Where parts are kept.
        batch_size: Images a forward pass.
        num_workers: Loader processes, 0 decodes in this one.
        device: Where to compute; None leaves the detector where it is.
        stage: Name shown in the progress.
        progress: Told after each part.
    """
    detector.eval()
    if device is not None:
        detector.to(device)
    base = _fingerprint(detector)
    parts = []
    for start in range(0, len(manifest), PART_SIZE):
        part = Manifest(manifest.frame.slice(start, PART_SIZE), manifest.root)
        key = sha256_bytes("\n".join([base, *part.frame["image_id"], *part.frame["path"]]).encode())
        path = folder / f"{key[:32]}.safetensors"
        if not path.is_file():
            _write_part(path, detector, part, batch_size, num_workers)
        parts.append(_read_part(path, part))
        progress(Progress(stage, min(start + PART_SIZE, len(manifest)), len(manifest)))
    if not parts:
        return FeatureTable(torch.empty(0, 0), torch.empty(0), (), ())
    return FeatureTable(
        torch.cat([part.feature for part in parts]),
        torch.cat([part.label_N for part in parts]),
        tuple(image_id for part in parts for image_id in part.image_id),
        tuple(bad for part in parts for bad in part.bad),
    )


@torch.no_grad()
def _write_part(path: Path, detector: FrozenFeatures, part: Manifest, batch_size: int, num_workers: int) -> None:
    device = next(detector.parameters()).device
    features: list[Tensor] = []
    image_ids: list[str] = []
    bad: list[BadFile] = []
    for batch in iterate_batches(part, detector.preprocess, batch_size, num_workers):
        bad.extend(batch.bad)
        if len(batch.image_id):
            features.append(detector.features(batch.image_BCHW.to(device)).float().cpu())
            image_ids.extend(batch.image_id)
    facts = {"image_id": json.dumps(image_ids), "bad": json.dumps([file._asdict() for file in bad])}
    tensors = {"feature": torch.cat(features).contiguous() if features else torch.empty(0)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=facts)


def _read_part(path: Path, part: Manifest) -> FeatureTable:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        feature = file.get_tensor("feature")
    image_ids = tuple(json.loads(metadata["image_id"]))
    label_of = dict(zip(part.frame["image_id"], part.frame["label"], strict=True))
    labels = torch.tensor([label_of[image_id] for image_id in image_ids], dtype=torch.float32)
    return FeatureTable(feature, labels, image_ids, tuple(BadFile(**file) for file in json.loads(metadata["bad"])))


def _fingerprint(detector: FrozenFeatures) -> str:
    """Hash what features depend on: every frozen tensor, the architecture's text, and the preprocessing."""
    digest = hashlib.sha256(canonical_json(detector.preprocess.to_json()).encode())
    for name, tensor in _frozen_tensors(detector):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _frozen_tensors(detector: FrozenFeatures) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in detector.state_dict().items():
        if not name.startswith("head."):
            yield name, tensor
