"""Checkpoint x manifest -> predictions, once, in parts that survive a kill.

The rows of the manifest are cut into parts of `BATCHES_PER_PART` batches. Each finished part is one Parquet file,
written atomically into `parts/<key>/` of the run folder; the key is a hash of all that the logits depend on
(checkpoint, manifest, splits, batch size, device), so a part of another checkpoint is never taken. The same command
after `kill -9` scores only what is missing, in the same batches, and ends with the same table.

A part already has the columns `perturbation` and `severity`: perturbed copies of an image become further rows of the
same part, made from one decoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from forgery_det.core.artefacts import canonical_json, sha256_bytes, sha256_file
from forgery_det.core.errors import ConfigError, ManifestError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.core.tables import PREDICTION_SCHEMA, read_table, write_table
from forgery_det.core.types import CLEAN
from forgery_det.data.batches import iterate_batches
from forgery_det.data.dataset import BadFile
from forgery_det.detectors.base import Detector

BATCHES_PER_PART = 16
"""Batches in one part: what a kill can cost."""

PARTS_NAME = "parts"
NOT_FINITE = "non_finite_logit"
"""Reason of an image for which the detector answered NaN or infinity; it counts as a bad file."""

PART_SCHEMA: dict[str, pl.DataType] = {
    "image_id": pl.String(),
    "path": pl.String(),
    "perturbation": pl.String(),
    "severity": pl.Int64(),
    "logit": pl.Float64(),
    "bad": pl.String(),
}
"""`logit` is null exactly where `bad` holds the reason."""


@dataclass(frozen=True, slots=True)
class ScoringKey:
    """All that decides the logits; two runs with equal keys give equal tables.

    Args:
        checkpoint_sha256: Hash of the checkpoint file.
        manifest_digest: Hash of the manifest.
        splits: Splits that are scored, in manifest order.
        batch_size: Images a forward pass; sums are rounded differently in other batches.
        device: Kind of device, `cpu` or `cuda`.
    """

    checkpoint_sha256: str
    manifest_digest: str
    splits: tuple[str, ...]
    batch_size: int
    device: str

    @classmethod
    def of(
        cls, checkpoint: Path, manifest: Manifest, splits: Sequence[str], batch_size: int, device: torch.device
    ) -> ScoringKey:
        """Build the key of a scoring.

        Raises:
            ConfigError: `batch_size` below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"Expected `batch_size` of at least 1, got {batch_size}.")
        return cls(sha256_file(checkpoint), manifest.digest(), tuple(sorted(splits)), batch_size, device.type)

    def digest(self) -> str:
        """Return 16 hexadecimal digits for folder names."""
        parts = [
            self.checkpoint_sha256, self.manifest_digest, list(self.splits), self.batch_size, self.device,
            BATCHES_PER_PART,
        ]  # fmt: skip
        return sha256_bytes(canonical_json(parts).encode())[:16]


@dataclass(frozen=True, slots=True)
class Scores:
    """Outcome of a scoring.

    Args:
        predictions: Columns of `PREDICTION_SCHEMA`, in manifest order; bad files have no row.
        bad_files: Images that could not be scored, in manifest order.
    """

    predictions: pl.DataFrame
    bad_files: tuple[BadFile, ...]


def score_manifest(
    detector: Detector,
    manifest: Manifest,
    key: ScoringKey,
    run: Path,
    *,
    temperature: float | None = None,
    num_workers: int = 0,
    progress: ProgressSink = silent,
) -> Scores:
    """Score the images of `key.splits`, reusing finished parts of an interrupted run.

    Args:
        detector: From the checkpoint of `key`; moved to its device and put into evaluation mode.
        manifest: The dataset.
        key: What the scores depend on.
        run: Run folder; parts are kept in `parts/` until `remove_parts`.
        temperature: `score = sigmoid(logit / temperature)`; None counts as 1.
        num_workers: Loader processes, 0 decodes in this one. The table does not depend on it.
        progress: Told after each part.

    Raises:
        ConfigError: The splits hold no image.
    """
    wanted = manifest.subset(pl.col("split").is_in(list(key.splits)))
    if not len(wanted):
        have = sorted(manifest.frame["split"].unique().to_list())
        raise ConfigError(f"Expected images in split {' or '.join(key.splits)}, got none: {manifest.root} has {have}.")
    folder = Path(run) / PARTS_NAME / key.digest()
    size = key.batch_size * BATCHES_PER_PART
    bounds = [(start, min(start + size, len(wanted))) for start in range(0, len(wanted), size)]
    missing = [bound for bound in bounds if _finished(folder, bound, wanted) is None]
    done = len(wanted) - sum(stop - start for start, stop in missing)
    progress(Progress("scoring", done, len(wanted)))
    for bound, part in _score_parts(detector, wanted, missing, key, num_workers):
        write_table(part, _part_path(folder, bound))
        done += bound[1] - bound[0]
        progress(Progress("scoring", done, len(wanted)))
    return _gather([read_table(_part_path(folder, bound), PART_SCHEMA) for bound in bounds], temperature)


def remove_parts(run: Path) -> None:
    """Delete the parts of a run whose predictions are written."""
    folder = Path(run) / PARTS_NAME
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.is_dir():
        folder.rmdir()


def score_of(logit: np.ndarray, temperature: float | None) -> np.ndarray:
    """Return `sigmoid(logit / temperature)`, in [0, 1]; None counts as temperature 1.

    Example:
        >>> score_of(np.array([-1000.0, 0.0, 2.0]), 2.0).round(3).tolist()
        [0.0, 0.5, 0.731]
    """
    scaled = np.asarray(logit, dtype=np.float64) / (1.0 if temperature is None else temperature)
    # Both branches only take exp of numbers at most 0, which cannot overflow.
    small = np.exp(-np.abs(scaled))
    return np.asarray(np.where(scaled >= 0, 1.0 / (1.0 + small), small / (1.0 + small)))


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` takes a CUDA device when there is one.

    Raises:
        ConfigError: Not a device of this machine.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"Expected `device` to be auto, cpu or cuda, got {name!r}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"Expected a CUDA device for `device: {name}`, got a machine without one. Use auto or cpu.")
    return device


Bound = tuple[int, int]


def _part_path(folder: Path, bound: Bound) -> Path:
    return folder / f"part-{bound[0]:09d}.parquet"


def _finished(folder: Path, bound: Bound, wanted: Manifest) -> pl.DataFrame | None:
    """Return a finished part, or None when it is absent or does not hold the rows it should."""
    path = _part_path(folder, bound)
    if not path.is_file():
        return None
    try:
        part = read_table(path, PART_SCHEMA)
    except ManifestError:
        return None
    expected = wanted.frame["image_id"][bound[0] : bound[1]]
    return part if part["image_id"].to_list() == expected.to_list() else None


def _score_parts(
    detector: Detector, wanted: Manifest, missing: Sequence[Bound], key: ScoringKey, num_workers: int
) -> Iterator[tuple[Bound, pl.DataFrame]]:
    """Score the missing parts with one loader; parts are whole batches, so no batch straddles two of them."""
    if not missing:
        return
    device = torch.device(key.device)
    detector = detector.to(device).eval()
    rows = Manifest(pl.concat([wanted.frame[start:stop] for start, stop in missing]), wanted.root)
    found: dict[str, tuple[float | None, str | None]] = {}
    waiting = iter(missing)
    bound = next(waiting)
    for batch in iterate_batches(rows, detector.preprocess, key.batch_size, num_workers=num_workers):
        found |= {bad.image_id: (None, bad.reason) for bad in batch.bad}
        if batch.image_id:
            with torch.inference_mode():
                logit_B = detector(batch.image_BCHW.to(device)).double().cpu().tolist()
            for image_id, logit in zip(batch.image_id, logit_B, strict=True):
                found[image_id] = (logit, None) if np.isfinite(logit) else (None, NOT_FINITE)
        while len(found) >= bound[1] - bound[0]:
            part = wanted.frame[bound[0] : bound[1]]
            yield bound, _part_frame(part, {image_id: found.pop(image_id) for image_id in part["image_id"]})
            following = next(waiting, None)
            if following is None:
                return
            bound = following


def _part_frame(part: pl.DataFrame, found: dict[str, tuple[float | None, str | None]]) -> pl.DataFrame:
    outcome = [found[image_id] for image_id in part["image_id"]]
    return pl.DataFrame(
        {
            "image_id": part["image_id"],
            "path": part["path"],
            "perturbation": [CLEAN] * part.height,
            "severity": [0] * part.height,
            "logit": [logit for logit, _ in outcome],
            "bad": [reason for _, reason in outcome],
        },
        schema=PART_SCHEMA,
    )


def _gather(parts: Sequence[pl.DataFrame], temperature: float | None) -> Scores:
    table = pl.concat(parts)
    good = table.filter(pl.col("bad").is_null())
    score = pl.Series("score", score_of(good["logit"].to_numpy(), temperature), dtype=pl.Float64())
    bad = table.filter(pl.col("bad").is_not_null()).select("image_id", "path", "bad").unique(maintain_order=True)
    return Scores(
        good.with_columns(score).select(list(PREDICTION_SCHEMA)),
        tuple(BadFile(image_id, path, reason) for image_id, path, reason in bad.iter_rows()),
    )
