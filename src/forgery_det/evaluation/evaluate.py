"""`evaluate`: a checkpoint and a dataset in, a run folder out.

    score -> thresholds -> slices, protocols -> MetricRecords -> tables, report, run.json

Everything is written atomically and `run.json` comes last, so a folder whose `run.json` names this evaluation is
complete. Run again with nothing changed, the logits are not computed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.artefacts import remove_leftovers, sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.core.registry import did_you_mean
from forgery_det.core.runs import RUN_NAME, RunRecord
from forgery_det.core.tables import (
    PREDICTION_SCHEMA,
    PREDICTIONS_NAME,
    RESULTS_NAME,
    read_table,
    results_frame,
    write_table,
)
from forgery_det.core.types import CLEAN, SPLITS
from forgery_det.data.dataset import BadFile
from forgery_det.detectors.checkpoint import CheckpointFacts, load_checkpoint
from forgery_det.evaluation.audit_file import read_audit
from forgery_det.evaluation.exposure import seen_generators
from forgery_det.evaluation.heatmaps import check_installed
from forgery_det.evaluation.page import Outcome, report_data
from forgery_det.evaluation.perturbations import BadCopy, check_perturbations, conditions_of
from forgery_det.evaluation.perturbations import Declared as DeclaredPerturbations
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.run import DEFAULT_PROTOCOLS, Declared, check_protocols, run_protocols
from forgery_det.evaluation.score import Scores, ScoringKey, choose_device, remove_parts, score_manifest
from forgery_det.evaluation.slice_metrics import Statistics, slice_records
from forgery_det.evaluation.slices import PROMPT_WORD_BINS, make_slices, prompt_bins
from forgery_det.evaluation.thresholds import Thresholds, fit_on_val, from_checkpoint, no_thresholds
from forgery_det.reporting.data import AuditRow
from forgery_det.reporting.write import write_report


@dataclass(slots=True)
class _Clock:
    """Durations of the stages; the one mutable thing here, written once a stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def evaluate(
    checkpoint: Path,
    dataset: Path,
    out: Path,
    *,
    split: str = "test",
    audit: Path | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    n_replicates: int = 1000,
    seed: int = 0,
    min_per_class: int = 5,
    prompt_word_bins: Sequence[int] = PROMPT_WORD_BINS,
    protocols: Declared = DEFAULT_PROTOCOLS,
    perturbations: DeclaredPerturbations | None = None,
    gallery_size: int = 12,
    heatmaps: bool = False,
    device: str = "auto",
    progress: ProgressSink = silent,
) -> Path:
    """Score a dataset, compute the metrics of every slice, and write the run folder.

    Thresholds come from the checkpoint, else from the dataset's `val` split; without either, metrics that need one are
    "not estimable". Files that cannot be scored are counted, named in `run.json`, and listed in the report.

    Args:
        checkpoint: One of our checkpoints.
        dataset: Dataset folder with `manifest.parquet`.
        out: Run folder; made when it is not there. An interrupted evaluation in it is resumed.
        split: Split that is judged.
        audit: `audit.json` of the dataset, or its folder, to be shown in the report.
        batch_size: Images a forward pass.
        num_workers: Loader processes, 0 decodes in this one.
        n_replicates: Bootstrap replicates of the intervals.
        seed: Seed of the bootstrap.
        min_per_class: Fewest images of a class for a metric; below it the slice is "not estimable".
        prompt_word_bins: Last word count of each prompt-length bin but the open last one.
        protocols: Protocol name -> options (None for the defaults), run in this order; see `list protocols`.
        perturbations: Perturbation name -> severities or `all`: copies of the judged split that are scored as well, for
            the protocols `robustness` and `contamination`; see `list perturbations`.
        gallery_size: Pictures of each kind of mistake.
        heatmaps: Show beside each picture which part drives the logit (`evaluation.heatmaps`); 64 forward passes a
            picture, and the extra `explain`.
        device: `auto`, `cpu` or `cuda`.
        progress: Told how far the scoring is.

    Returns:
        The run folder, with `predictions.parquet`, `results.parquet`, `run.json`, `report.html`, `report.md`,
        `figures/`.

    Raises:
        ConfigError: An option is out of range, the split is empty, or the audit file is unreadable.
        UnknownNameError: No such protocol or perturbation.
        ManifestError: The dataset has no valid manifest.
        WeightsError: The checkpoint does not fit its detector.
    """
    protocols, perturbations = check_protocols(protocols), check_perturbations(perturbations)
    config = _config(locals())
    if heatmaps:
        check_installed()
    prompt_bins(prompt_word_bins)
    clock, run = _Clock(), Path(out)
    findings = None if audit is None else read_audit(Path(audit))
    with clock.stage("load"):
        manifest = Manifest.load(Path(dataset))
        loaded = load_checkpoint(Path(checkpoint))
    _check_split(manifest, split)
    remove_leftovers(run)
    splits = _splits_to_score(loaded.facts, manifest, split)
    conditions = conditions_of(perturbations)
    key = ScoringKey.of(Path(checkpoint), manifest, splits, batch_size, choose_device(device), conditions, split)
    with clock.stage("score"):
        scores = _finished_scores(run, key) or score_manifest(
            loaded.detector, manifest, key, run,
            temperature=loaded.facts.temperature, num_workers=num_workers, progress=progress,
        )  # fmt: skip
    with clock.stage("metrics"):
        progress(Progress("metrics", 0, None))
        statistics = Statistics(n_replicates, seed, min_per_class)
        context, outcome = _judge(loaded.facts, manifest, scores, statistics, findings, config)
    outcome = replace(outcome, protocols=run_protocols(protocols, context, clock.stage))
    with clock.stage("report"):
        write_table(scores.predictions, run / PREDICTIONS_NAME)
        write_table(results_frame(outcome.all_records()), run / RESULTS_NAME)
        write_report(report_data(outcome, loaded.detector if heatmaps else None), run)
    facts = _facts(outcome, key, run) | {"bad_copies": [copy._asdict() for copy in scores.bad_copies]}
    RunRecord("evaluate", config, seed, key.manifest_digest, clock.seconds, facts).write(run)
    remove_parts(run)
    return run


def _judge(
    checkpoint: CheckpointFacts,
    manifest: Manifest,
    scores: Scores,
    statistics: Statistics,
    findings: tuple[AuditRow, ...] | None,
    config: Mapping[str, Any],
) -> tuple[ProtocolContext, Outcome]:
    """Compute the metrics of every slice of the judged split; also return what the protocols are given."""
    scored = scores.predictions.join(manifest.frame, on="image_id", how="left", maintain_order="left")
    clean = scored.filter(pl.col("perturbation") == CLEAN)
    thresholds = choose_thresholds(checkpoint, clean, config["split"], manifest.name)
    seen, seen_source = seen_generators(checkpoint.training, manifest)
    context = ProtocolContext(
        scored, config["split"], thresholds, statistics, seen, checkpoint.training, manifest.frame
    )
    judged = context.judged()
    slices = make_slices(judged, seen, config["prompt_word_bins"])
    return context, Outcome(
        judged=judged,
        manifest=manifest,
        slices=slices,
        records=slice_records(judged, slices, thresholds, statistics),
        thresholds=thresholds,
        seen=seen,
        seen_source=seen_source,
        audit=findings,
        bad_files=scores.bad_files,
        detector=checkpoint.detector,
        temperature=checkpoint.temperature,
        config=config,
    )


def choose_thresholds(checkpoint: CheckpointFacts, scored: pl.DataFrame, split: str, dataset: str) -> Thresholds:
    """Return the checkpoint's thresholds, else those of scored `val` rows, else none; never those of the judged split.

    Args:
        checkpoint: Has operating points once it is calibrated.
        scored: Predictions joined with the manifest.
        split: Split that is judged.
        dataset: Name for the record.
    """
    if checkpoint.operating_points:
        return from_checkpoint(checkpoint.operating_points, checkpoint.training.get("n_val_real"))
    if split == "val":
        return no_thresholds("the checkpoint has none, and val is the split that is judged")
    val = scored.filter(pl.col("split") == "val")
    if not val.height:
        return no_thresholds("neither the checkpoint nor the dataset has a val split to fit it on")
    return fit_on_val(val["label"].to_numpy(), val["logit"].to_numpy(), dataset)


def _config(arguments: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in arguments.items() if name != "progress"}
    return {
        name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, (list, tuple)) else value
        for name, value in plain.items()
    }


def _check_split(manifest: Manifest, split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"Unknown split {split!r}: {did_you_mean(split, SPLITS)}")
    if not len(manifest.subset(pl.col("split") == split)):
        have = sorted(manifest.frame["split"].unique().to_list())
        raise ConfigError(f"Expected images in split {split!r}, got none: {manifest.root} has {have}.")


def _splits_to_score(checkpoint: CheckpointFacts, manifest: Manifest, split: str) -> tuple[str, ...]:
    has_val = bool(len(manifest.subset(pl.col("split") == "val")))
    needs_val = not checkpoint.operating_points and has_val and split != "val"
    return (split, "val") if needs_val else (split,)


def _finished_scores(run: Path, key: ScoringKey) -> Scores | None:
    """Return the scores of a finished evaluation of the same thing in this folder."""
    path = run / RUN_NAME
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Expected a run record, got something else in {path} ({error}). Give another folder."
        ) from error
    predictions = run / PREDICTIONS_NAME
    if facts.get("scoring_key") != key.digest() or not predictions.is_file():
        return None
    if facts.get("predictions_sha256") != sha256_file(predictions):
        return None
    bad = tuple(BadFile(row["image_id"], row["path"], row["reason"]) for row in facts["bad_files"])
    return Scores(
        read_table(predictions, PREDICTION_SCHEMA), bad, tuple(BadCopy(**copy) for copy in facts.get("bad_copies", []))
    )


def _facts(outcome: Outcome, key: ScoringKey, run: Path) -> dict[str, Any]:
    return {
        "scoring_key": key.digest(),
        "predictions_sha256": sha256_file(run / PREDICTIONS_NAME),
        "detector": outcome.detector,
        "checkpoint_sha256": key.checkpoint_sha256,
        "device": key.device,
        "splits_scored": list(key.splits),
        "thresholds": asdict(outcome.thresholds),
        "temperature": outcome.temperature,
        "seen_generators": None if outcome.seen is None else sorted(outcome.seen),
        "seen_generators_from": outcome.seen_source,
        "n_scored": outcome.judged.height,
        "n_bad_files": len(outcome.bad_files),
        "bad_files": [{"image_id": b.image_id, "path": b.path, "reason": b.reason} for b in outcome.bad_files],
    }
