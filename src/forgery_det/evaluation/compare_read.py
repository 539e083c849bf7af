"""Run folders -> tables of logits that can be set beside each other.

A run says in `run.json` which checkpoint scored which dataset, with which thresholds. Its predictions are joined with
that very manifest: a dataset that has changed since is refused, because its labels would be those of other images.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.artefacts import remove_leftovers, sha256_file
from forgery_det.core.errors import ConfigError, ManifestError
from forgery_det.core.manifest import Manifest
from forgery_det.core.runs import RUN_NAME
from forgery_det.core.tables import PREDICTION_SCHEMA, PREDICTIONS_NAME, read_table
from forgery_det.core.types import CLEAN

_COLUMNS = ("image_id", "label", "source_id", "generator", "paradigm", "decoder")


@dataclass(frozen=True, slots=True, eq=False)
class RunTable:
    """One evaluation as `compare` needs it.

    Args:
        run: Run folder.
        name: What tables call the detector; unique among the runs on one dataset.
        checkpoint: sha256 of the checkpoint: runs of one checkpoint on several datasets are one detector.
        detector: Registry name; empty where the run does not say.
        dataset: Name of the dataset folder.
        manifest_hash: Of the dataset.
        split: The judged split.
        thresholds: Operating point -> logit threshold, never fitted on the judged split.
        seen: Generators that its training used; None when nobody knows.
        n_bad: Files that it could not score.
        table: `image_id, label, source_id, generator, paradigm, decoder, logit`, one row an image, as stored.
    """

    run: Path
    name: str
    checkpoint: str
    detector: str
    dataset: str
    manifest_hash: str
    split: str
    thresholds: Mapping[str, float]
    seen: frozenset[str] | None
    n_bad: int
    table: pl.DataFrame


def read_runs(
    runs: Sequence[Path], names: Sequence[str] | None = None, datasets: Sequence[Path] = ()
) -> tuple[RunTable, ...]:
    """Read evaluations.

    Args:
        runs: Run folders of `forgery-det evaluate`.
        names: One for each run; equal names on different datasets are the same detector. None takes the detector's
            name where only one checkpoint has it, else the last parts of the folder's path.
        datasets: Where datasets lie now, for runs whose dataset was moved.

    Raises:
        ConfigError: Fewer than two runs, a folder without a finished evaluation, a dataset that is not there or has
            changed, names that do not fit, or two runs of one name on one dataset.
    """
    if len(runs) < 2:
        raise ConfigError(f"Expected at least 2 runs to compare, got {len(runs)}.")
    if names is not None and len(names) != len(runs):
        raise ConfigError(f"Expected one name for each of the {len(runs)} runs, got {len(names)} in `names`.")
    records = [_record(Path(run)) for run in runs]
    manifests = _Manifests(tuple(Path(folder) for folder in datasets))
    called = [_clean(name) for name in (_default_names(runs, records) if names is None else names)]
    tables = tuple(
        _table(Path(run), name, record, manifests) for run, name, record in zip(runs, called, records, strict=True)
    )
    _check_different(tables)
    return tables


def read_run(run: Path, name: str) -> RunTable:
    """Read one evaluation, called `name`.

    Raises:
        ConfigError: The folder holds no finished evaluation, or its dataset is not there or has changed.
    """
    return _table(Path(run), name, _record(Path(run)), _Manifests(()))


def is_evaluated(run: Path, checkpoint: Path, manifest_hash: str) -> bool:
    """Tell whether the folder holds the finished evaluation of this very checkpoint on this very dataset."""
    path = Path(run) / RUN_NAME
    if not path.is_file():
        return False
    record = _json(path)
    facts = record.get("facts", {})
    return (
        record.get("command") == "evaluate"
        and record.get("manifest_hash") == manifest_hash
        and facts.get("checkpoint_sha256") == sha256_file(Path(checkpoint))
        and (Path(run) / PREDICTIONS_NAME).is_file()
        and facts.get("predictions_sha256") == sha256_file(Path(run) / PREDICTIONS_NAME)
    )


def check_out(out: Path, command: str) -> None:
    """Refuse an output folder that holds another command's run; delete what a killed run of this one left.

    Raises:
        ConfigError: The folder is a run folder of another command.
    """
    path = Path(out) / RUN_NAME
    if path.is_file() and _json(path).get("command") != command:
        raise ConfigError(f"Expected a new folder, or one of `forgery-det {command}`, got another run in {out}.")
    if Path(out).is_dir():
        remove_leftovers(Path(out))


class _Manifests:
    """Datasets by hash, each read once."""

    def __init__(self, elsewhere: tuple[Path, ...]) -> None:
        self.elsewhere = elsewhere
        self.known: dict[Path, tuple[Manifest, str]] = {}

    def find(self, recorded: Path, wanted: str, run: Path) -> Manifest:
        found = []
        for folder in (recorded, *self.elsewhere):
            try:
                manifest, digest = self._load(folder)
            except ManifestError as error:
                found.append(str(error))
                continue
            if digest == wanted:
                return manifest
            found.append(f"{folder} has changed since (manifest {digest[:12]})")
        raise ConfigError(
            f"Expected the dataset that {run} judged (manifest {wanted[:12]}), got: {'; '.join(found)}. "
            "Evaluate again, or say where it lies now with `--datasets`."
        )

    def _load(self, folder: Path) -> tuple[Manifest, str]:
        if folder not in self.known:
            manifest = Manifest.load(folder)
            self.known[folder] = manifest, manifest.digest()
        return self.known[folder]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a run record, got nothing readable at {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"Expected a run record, got something else in {path}.")
    return content


def _record(run: Path) -> dict[str, Any]:
    if not (run / RUN_NAME).is_file():
        raise ConfigError(
            f"Expected a run folder with {RUN_NAME}, got {run}. "
            "Make one with `forgery-det evaluate CHECKPOINT DATASET`."
        )
    record = _json(run / RUN_NAME)
    if record.get("command") != "evaluate":
        raise ConfigError(f"Expected a run of `forgery-det evaluate`, got one of {record.get('command')!r} in {run}.")
    return record


def _default_names(runs: Sequence[Path], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the detector's name where one checkpoint has it, else the shortest path ends that tell runs apart."""
    checkpoints: dict[str, set[str]] = {}
    for record in records:
        detector = str(record["facts"].get("detector", ""))
        checkpoints.setdefault(detector, set()).add(record["facts"]["checkpoint_sha256"])
    first_run: dict[str, Path] = {}
    for run, record in zip(runs, records, strict=True):
        first_run.setdefault(record["facts"]["checkpoint_sha256"], Path(run).resolve())
    ends = dict(zip(first_run, _path_ends(list(first_run.values())), strict=True))
    names = []
    for record in records:
        detector, checkpoint = str(record["facts"].get("detector", "")), record["facts"]["checkpoint_sha256"]
        names.append(detector if detector and len(checkpoints[detector]) == 1 else ends[checkpoint])
    return names


def _path_ends(paths: Sequence[Path]) -> list[str]:
    deepest = max(len(path.parts) for path in paths)
    for depth in range(1, deepest + 1):
        ends = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(ends)) == len(ends):
            return ends
    return [str(path) for path in paths]


def _clean(name: str) -> str:
    # Names become part of a slice, where these two characters separate.
    return name.replace(",", "_").replace("=", "_")


def _table(run: Path, name: str, record: Mapping[str, Any], manifests: _Manifests) -> RunTable:
    config, facts = record["config"], record["facts"]
    manifest = manifests.find(Path(config["dataset"]), record["manifest_hash"], run)
    predictions = read_table(run / PREDICTIONS_NAME, PREDICTION_SCHEMA).filter(pl.col("perturbation") == CLEAN)
    judged = manifest.frame.filter(pl.col("split") == config["split"]).select(_COLUMNS)
    seen = facts.get("seen_generators")
    return RunTable(
        run=run,
        name=name,
        checkpoint=facts["checkpoint_sha256"],
        detector=str(facts.get("detector", "")),
        dataset=manifest.name,
        manifest_hash=record["manifest_hash"],
        split=config["split"],
        thresholds=facts["thresholds"]["value"],
        seen=None if seen is None else frozenset(seen),
        n_bad=judged.height - judged.join(predictions, on="image_id", how="semi").height,
        table=judged.join(predictions.select("image_id", "logit"), on="image_id", how="inner", maintain_order="left"),
    )


def _check_different(tables: Sequence[RunTable]) -> None:
    counted = Counter((table.name, table.manifest_hash, table.split) for table in tables)
    for (name, manifest_hash, split), count in counted.items():
        if count > 1:
            folders = [str(t.run) for t in tables if (t.name, t.manifest_hash, t.split) == (name, manifest_hash, split)]
            raise ConfigError(
                f"Expected different detectors on one dataset, got '{name}' {count} times: {', '.join(folders)}. "
                "The same checkpoint was given twice, or give other `--names`."
            )
