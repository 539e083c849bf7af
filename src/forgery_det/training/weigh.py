"""Weigh trained detectors into an ensemble on `val`, and show its best member beside it on images that fitted nothing.

Members are scored on `val`; `detectors.combination` gives each a weight, the sum is calibrated, and one checkpoint
holds them all. The best member is the one with the highest AUROC on `val`, because the choice would flatter it on
`test`. An ensemble fitted on `val` has been seen to lose to that member on images unlike `val`: the comparison on the
held-out split is part of the result, with the interval of the paired difference over the sources of images.

`scaled_on_val` is the same with one member that has nothing to learn (`rigid`, `warpad`, `aeroblade`): its similarity
gets the slope and the offset that make it log-odds. Its checkpoint is an ensemble of one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.core.runs import RunRecord
from forgery_det.core.types import GENERATED, REAL
from forgery_det.detectors.base import Detector
from forgery_det.detectors.checkpoint import CheckpointFacts, LoadedDetector, load_checkpoint, save_checkpoint
from forgery_det.detectors.combination import fit_combination
from forgery_det.detectors.ensemble import ensemble_of
from forgery_det.metrics.ranking import auroc
from forgery_det.training.calibrate import Calibration
from forgery_det.training.members import MemberResult, Scored, compare_members, score_members
from forgery_det.training.paths import FIT_RECORD, best_checkpoint


@dataclass(frozen=True, slots=True)
class EnsembleResult:
    """A weighed ensemble.

    Args:
        run: Run folder.
        checkpoint: All members and their weights, calibrated.
        rows: The ensemble first, then the members as they were given.
        split: Held-out split of the comparison.
        notes: What a reader must know.
    """

    run: Path
    checkpoint: Path
    rows: tuple[MemberResult, ...]
    split: str
    notes: tuple[str, ...]


def weigh(
    checkpoints: Sequence[Path],
    dataset: Path,
    out: Path,
    *,
    split: str = "test",
    batch_size: int = 32,
    num_workers: int = 0,
    n_replicates: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    progress: ProgressSink = silent,
) -> EnsembleResult:
    """Weigh checkpoints on `val` of a dataset and write the ensemble into a run folder.

    Args:
        checkpoints: Two or more of our checkpoints.
        dataset: Dataset folder; its `val` weighs, its `split` is held out.
        out: Run folder; gets `checkpoints/best.ckpt` and, last, `fit.json`.
        split: Held-out split of the comparison; not `val`.
        batch_size: Images a forward pass.
        num_workers: Loader processes, 0 decodes in this one.
        n_replicates: Of the bootstrap.
        seed: Of the bootstrap.
        device: `cpu` or a CUDA device.
        progress: Told while images are scored.

    Raises:
        ConfigError: Fewer than two checkpoints, one twice, a split without images or classes, or a folder that holds
            another training.
        WeightsError: A file is not one of our checkpoints.
    """
    started = time.monotonic()
    if len(checkpoints) < 2 or len({sha256_file(path) for path in map(_file, checkpoints)}) < len(checkpoints):
        given = ", ".join(map(str, checkpoints)) or "none"
        raise ConfigError(f"Expected two or more different checkpoints, got {given}.")
    if split == "val":
        raise ConfigError("Expected a held-out split, got `val`, which weighs the members. Use `split: test`.")
    if (Path(out) / FIT_RECORD).is_file():
        raise ConfigError(f"Expected a folder without a finished training, got {out}. Give another `--out`.")
    loaded = [load_checkpoint(Path(path)) for path in checkpoints]
    manifest = Manifest.load(dataset)
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "device": device}
    detectors = [one.detector for one in loaded]
    val = score_members(detectors, _split(manifest, "val"), **options, progress=progress)
    combination = fit_combination(val.label_N, val.logit_NM)
    calibration = Calibration.fitted(val.label_N, combination.apply(val.logit_NM))
    checkpoint = best_checkpoint(out)
    save_checkpoint(
        checkpoint,
        ensemble_of([one.cpu() for one in detectors], combination),
        temperature=calibration.temperature,
        operating_points=calibration.operating_points,
        training=_training(loaded, manifest, val),
    )
    names = [f"{number} {_name(one.facts)}" for number, one in enumerate(loaded, 1)]
    held_out = score_members(detectors, _split(manifest, split), **options, progress=progress)
    rows = compare_members(names, combination, val, held_out, n_replicates, seed)
    result = EnsembleResult(Path(out), checkpoint, rows, split, _notes(loaded, checkpoints, manifest, held_out, val))
    RunRecord(
        command="ensemble",
        config={"checkpoints": [str(path) for path in checkpoints], "dataset": str(dataset), "split": split, **options},
        seed=seed,
        manifest_hash=manifest.digest(),
        durations_s={"ensemble": round(time.monotonic() - started, 1)},
        facts={
            **calibration.facts(),
            "combination": asdict(combination),
            "members": [asdict(row) for row in rows],
            "notes": list(result.notes),
        },
    ).write(result.run, FIT_RECORD)
    return result


def scaled_on_val(
    detector: Detector, val: Manifest, checkpoint: Path, *, batch_size: int, num_workers: int, training: dict[str, Any],
    device: torch.device | str = "cpu", progress: ProgressSink = silent,
) -> dict[str, Any]:  # fmt: skip
    """Write a calibrated checkpoint of a detector in which nothing learns: an ensemble of it alone, scaled on `val`.

    Args:
        detector: Built by `create_detector`.
        val: The images that scale it.
        checkpoint: Where the checkpoint goes.
        batch_size: Images a forward pass.
        num_workers: Loader processes.
        training: What the checkpoint remembers.
        device: Where they are scored.
        progress: Told while images are scored.

    Returns:
        What was fitted, for the run record.
    """
    scored = score_members(
        [detector], val, batch_size=batch_size, num_workers=num_workers, device=device, progress=progress
    )
    combination = fit_combination(scored.label_N, scored.logit_NM)
    if combination.weight == (0.0,):
        # It ranks val upside down. A constant would hide that; as it is, the temperature makes its scores say nothing.
        combination = replace(combination, weight=(1.0,), bias=0.0)
    calibration = Calibration.fitted(scored.label_N, combination.apply(scored.logit_NM))
    save_checkpoint(
        checkpoint,
        ensemble_of([detector.cpu()], combination),
        temperature=calibration.temperature,
        operating_points=calibration.operating_points,
        training=training,
    )
    val_auroc = auroc(scored.label_N, scored.logit_NM[:, 0])
    return {
        **calibration.facts(),
        "combination": asdict(combination),
        "val_auroc": val_auroc,
        "n_bad": scored.n_bad,
    }


def _file(path: Path) -> Path:
    if not Path(path).is_file():
        raise ConfigError(f"Expected a checkpoint, got {'a folder' if Path(path).is_dir() else 'nothing'} at {path}.")
    return Path(path)


def _split(manifest: Manifest, name: str) -> Manifest:
    part = manifest.subset(pl.col("split") == name)
    if set(part.frame["label"]) != {REAL, GENERATED}:
        raise ConfigError(
            f"Expected real and generated images in the split `{name}`, got {len(part)} images of one class or none "
            f"({manifest.root})."
        )
    return part


def _name(facts: CheckpointFacts) -> str:
    """Return the detector's name; of an ensemble the members', so that a scaled `rigid` is called that."""
    inside = facts.arguments.get("members") if facts.detector == "ensemble" else None
    return facts.detector if inside is None else "+".join(member["detector"] for member in inside)


def _training(loaded: Sequence[LoadedDetector], manifest: Manifest, val: Scored) -> dict[str, Any]:
    """Return what the ensemble's checkpoint remembers; generators only where every member knows its own."""
    known = [one.facts.training.get("generators") for one in loaded]
    fakes = manifest.frame.filter(pl.col("split") == "val", pl.col("label") == GENERATED)["generator"].to_list()
    generators = None if None in known else sorted({name for names in known for name in names or ()} | set(fakes))
    return {
        "dataset": manifest.name,
        "manifest_hash": manifest.digest(),
        **({} if generators is None else {"generators": generators}),
        "n_val": len(val.label_N),
        "n_val_real": int((val.label_N == REAL).sum()),
        "members": [_name(one.facts) for one in loaded],
    }


def _notes(
    loaded: Sequence[LoadedDetector], checkpoints: Sequence[Path], manifest: Manifest, held_out: Scored, val: Scored
) -> tuple[str, ...]:
    notes = [
        f"{path} was not trained on this dataset: nothing here shows that it never saw the held-out images."
        for one, path in zip(loaded, checkpoints, strict=True)
        if one.facts.training.get("manifest_hash") != manifest.digest()
    ]
    if n_bad := held_out.n_bad + val.n_bad:
        notes.append(f"{n_bad} images could not be read and were left out.")
    return tuple(notes)
