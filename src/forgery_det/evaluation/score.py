"""Checkpoint x manifest -> predictions, once, in parts that survive a kill.

The rows of the manifest are cut into parts of about `BATCHES_PER_PART` batches. Each finished part is one Parquet file,
written atomically into `parts/<key>/` of the run folder; the key is a hash of all that the logits depend on
(checkpoint, manifest, splits, batch size, device, perturbations), so a part of another checkpoint is never taken. The
same command after `kill -9` scores only what is missing, in the same batches, and ends with the same table.

Images of the judged split are also scored under each condition asked for (`perturbations`), real and generated alike:
further rows of the same part, made from one decoding (`fan_out`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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
from forgery_det.data.batches import collate
from forgery_det.data.dataset import BadFile, Item
from forgery_det.detectors.base import Detector, to_tensor
from forgery_det.evaluation.fan_out import Copy, CopyDataset, batch_copies, iterate_copies
from forgery_det.evaluation.perturbations import UNPERTURBED, BadCopy, Condition

BATCHES_PER_PART = 16
"""Batches in one part, perturbed copies counted, but at least one batch of images: what a kill can cost."""

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
        conditions: Perturbed copies that are scored beside the clean images, sorted.
        perturbed_split: The one split whose images are perturbed, None without conditions.
    """

    checkpoint_sha256: str
    manifest_digest: str
    splits: tuple[str, ...]
    batch_size: int
    device: str
    conditions: tuple[Condition, ...] = ()
    perturbed_split: str | None = None

    @classmethod
    def of(
        cls,
        checkpoint: Path,
        manifest: Manifest,
        splits: Sequence[str],
        batch_size: int,
        device: torch.device,
        conditions: Sequence[Condition] = (),
        perturbed_split: str | None = None,
    ) -> ScoringKey:
        """Build the key of a scoring.

        Raises:
            ConfigError: `batch_size` below 1.
        """
        if batch_size < 1:
            raise ConfigError(f"Expected `batch_size` of at least 1, got {batch_size}.")
        return cls(
            sha256_file(checkpoint),
            manifest.digest(),
            tuple(sorted(splits)),
            batch_size,
            device.type,
            tuple(sorted(conditions)),
            perturbed_split if conditions else None,
        )

    @property
    def rows_per_part(self) -> int:
        """Images in one part: whole batches of clean ones, so that no batch straddles two parts."""
        return self.batch_size * max(1, BATCHES_PER_PART // (1 + len(self.conditions)))

    def digest(self) -> str:
        """Return 16 hexadecimal digits for folder names."""
        parts = [
            self.checkpoint_sha256, self.manifest_digest, list(self.splits), self.batch_size, self.device,
            BATCHES_PER_PART,
        ]  # fmt: skip
        if self.conditions:
            parts += [self.perturbed_split, [condition.identity() for condition in self.conditions]]
        return sha256_bytes(canonical_json(parts).encode())[:16]


@dataclass(frozen=True, slots=True)
class Scores:
    """Outcome of a scoring.

    Args:
        predictions: Columns of `PREDICTION_SCHEMA`, in manifest order; the clean row of an image comes before those of
            its copies. What could not be scored has no row.
        bad_files: Images that could not be scored, in manifest order.
        bad_copies: Perturbed copies that could not be scored, of images that could.
    """

    predictions: pl.DataFrame
    bad_files: tuple[BadFile, ...]
    bad_copies: tuple[BadCopy, ...] = ()


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
    size = key.rows_per_part
    bounds = [(start, min(start + size, len(wanted))) for start in range(0, len(wanted), size)]
    missing = [bound for bound in bounds if not _is_finished(folder, bound, wanted, key)]
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


def _is_finished(folder: Path, bound: Bound, wanted: Manifest, key: ScoringKey) -> bool:
    """Tell whether a part is there and holds the rows it should."""
    path = _part_path(folder, bound)
    if not path.is_file():
        return False
    try:
        part = read_table(path, PART_SCHEMA)
    except ManifestError:
        return False
    return part.select(_ROW).equals(_rows_of_part(wanted.frame[bound[0] : bound[1]], key))


_ROW = ["image_id", "path", "perturbation", "severity"]


def _rows_of_part(images: pl.DataFrame, key: ScoringKey) -> pl.DataFrame:
    """Return the rows that the part of some images has, without their logits."""
    rows = [
        (image_id, path, condition.perturbation, condition.severity)
        for image_id, path, split in images.select("image_id", "path", "split").iter_rows()
        for condition in (UNPERTURBED, *(key.conditions if split == key.perturbed_split else ()))
    ]
    return pl.DataFrame(rows, schema={name: PART_SCHEMA[name] for name in _ROW}, orient="row")


def _score_parts(
    detector: Detector, wanted: Manifest, missing: Sequence[Bound], key: ScoringKey, num_workers: int
) -> Iterator[tuple[Bound, pl.DataFrame]]:
    """Score the missing parts with one loader; parts are whole batches, so no batch straddles two of them."""
    if not missing:
        return
    device = torch.device(key.device)
    detector = detector.to(device).eval()
    rows = Manifest(pl.concat([wanted.frame[start:stop] for start, stop in missing]), wanted.root)
    dataset = CopyDataset(rows, detector.preprocess, key.conditions, key.perturbed_split)
    copies = iterate_copies(dataset, num_workers)
    for bound in missing:
        part = _rows_of_part(wanted.frame[bound[0] : bound[1]], key)
        found: _Found = {}
        for batch in batch_copies(islice(copies, part.height), key.batch_size):
            found |= _score_batch(detector, batch, device)
        outcome = [found[image_id, Condition(name, severity)] for image_id, _, name, severity in part.iter_rows()]
        yield (
            bound,
            part.with_columns(
                pl.Series("logit", [logit for logit, _ in outcome], dtype=PART_SCHEMA["logit"]),
                pl.Series("bad", [reason for _, reason in outcome], dtype=PART_SCHEMA["bad"]),
            ),
        )


_Found = dict[tuple[str, Condition], tuple[float | None, str | None]]


def _score_batch(detector: Detector, batch: Sequence[Copy], device: torch.device) -> _Found:
    """Return the logit of each copy, or the reason why it has none."""
    found: _Found = {(copy.image_id, copy.condition): (None, copy.bad) for copy in batch}
    good = [(copy, copy.view) for copy in batch if copy.view is not None]
    if good:
        images = collate([Item(to_tensor(view), copy.label, copy.image_id) for copy, view in good])
        with torch.inference_mode():
            logit_B = detector(images.image_BCHW.to(device)).double().cpu().tolist()
        for (copy, _), logit in zip(good, logit_B, strict=True):
            outcome = (logit, None) if np.isfinite(logit) else (None, NOT_FINITE)
            found[copy.image_id, copy.condition] = outcome
    return found


def _gather(parts: Sequence[pl.DataFrame], temperature: float | None) -> Scores:
    table = pl.concat(parts)
    good = table.filter(pl.col("bad").is_null())
    score = pl.Series("score", score_of(good["logit"].to_numpy(), temperature), dtype=pl.Float64())
    bad = table.filter(pl.col("bad").is_not_null())
    bad_files = bad.filter(pl.col("perturbation") == CLEAN)
    bad_copies = bad.filter(~pl.col("image_id").is_in(bad_files["image_id"].implode()))
    return Scores(
        good.with_columns(score).select(list(PREDICTION_SCHEMA)),
        tuple(BadFile(*row) for row in bad_files.select("image_id", "path", "bad").iter_rows()),
        tuple(BadCopy(*row) for row in bad_copies.select(*_ROW, "bad").iter_rows()),
    )
