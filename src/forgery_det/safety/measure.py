"""`measure`: a plan becomes a run folder with every answer, every verdict, rates with intervals, and a report.

    prompts x models x pathways x repeats -> walk -> judge -> put away | rates, contrasts, agreement -> report

Everything left of the bar is done once a walk and remembered in a journal; everything right of it is quick and done
anew. The same command goes on after any interruption, and stops cleanly at its budget.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.core.runs import RunRecord
from forgery_det.core.tables import RESULTS_NAME, results_frame, write_table
from forgery_det.metrics.misclassification import JudgeError
from forgery_det.recipes.sources.base import default_cache
from forgery_det.recipes.work import WORK_NAME, exclusive
from forgery_det.safety.findings import Findings, find
from forgery_det.safety.journal import JOURNAL_NAME, WalkJournal
from forgery_det.safety.judges.base import Judge, JudgeContext
from forgery_det.safety.models.base import ModelContext, UnifiedModel
from forgery_det.safety.page import write_report
from forgery_det.safety.panel import CORRUPTION, DETECTOR, Panel, judge_digest
from forgery_det.safety.plan import SafetyPlan, digest, load_plan
from forgery_det.safety.prompts import read_prompts
from forgery_det.safety.registry import JUDGES, MODELS
from forgery_det.safety.tables import ITEM_SCHEMA, ITEMS_NAME, JUDGEMENT_SCHEMA, JUDGEMENTS_NAME, checked
from forgery_det.safety.types import SafetyPrompt
from forgery_det.safety.vault import Vault
from forgery_det.safety.walker import Walk, Walker

MEDIA_NAME = "media"


@dataclass(frozen=True, slots=True)
class SafetySummary:
    """What a run has come to.

    Args:
        run: The run folder.
        n_walks: Walks that the plan asks for.
        n_done: Walks that were made, refused or blocked.
        n_failed: Walks that failed; the same command tries them again.
        stopped: Why it stopped early; empty when all was walked.
        findings: What was found so far.
    """

    run: Path
    n_walks: int
    n_done: int
    n_failed: int
    stopped: str
    findings: Findings


def measure(
    plan: str | Path, out: Path, *, cache: Path | None = None, progress: ProgressSink = silent
) -> SafetySummary:
    """Carry out a plan, or go on with it.

    Args:
        plan: A YAML file.
        out: Run folder; made if absent.
        cache: Folder of downloads; None takes `$FORGERY_DET_CACHE` or `~/.cache/forgery-det`.
        progress: Told how far it is.

    Raises:
        ConfigError: The plan or a prompt file breaks a rule, no model can walk any of its pathways, or nothing came
            back at all.
        SourceError: A model or a judge cannot be had; what was done is kept.
    """
    loaded = load_plan(plan)
    out, folder = Path(out), (cache or default_cache()).expanduser()
    started = time.monotonic()
    prompts = read_prompts(loaded.prompts, loaded.folder)
    models = _models(loaded, folder)
    walks = _walks(loaded, models, prompts)
    with exclusive(out):
        panel, error = _panel(loaded, folder)
        with WalkJournal(out / WORK_NAME / JOURNAL_NAME) as journal, closing(panel):
            vault = Vault(out / MEDIA_NAME, loaded.store)
            walker = Walker(panel, vault, journal, loaded.instructions, loaded.budget, loaded.seed, progress)
            stopped = walker.all(walks)
            names = [one.digest(loaded.instructions, loaded.seed) for one in walks]
            known = journal.failures | journal.records
        done = [known[name] for name in names if name in known]
        items = [row for record in done for row in record.items]
        judgements = [row for record in done for row in panel.rows(record.judgements)]
        tables = _tables(items, judgements, loaded)
        found = find(loaded, *tables, corruption=error)
        _write(out, loaded, tables, found, stopped, time.monotonic() - started)
    n_failed = len(journal.failures)
    return SafetySummary(out, len(walks), len(done) - n_failed, n_failed, stopped, found)


def _models(plan: SafetyPlan, cache: Path) -> list[UnifiedModel]:
    built: list[UnifiedModel] = []
    for spec in plan.models:
        context = ModelContext(spec.name, spec.paradigm, plan.folder, cache)
        built.append(MODELS.get(spec.kind)(spec.parameters, context))
    return built


def _walks(plan: SafetyPlan, models: list[UnifiedModel], prompts: tuple[SafetyPrompt, ...]) -> list[Walk]:
    found = [
        Walk(model, pathway, prompt, index)
        for model in models
        for pathway in plan.pathways
        if model.can_walk(pathway)
        for prompt in prompts
        for index in range(plan.walks_per_prompt)
    ]
    idle = [model.name for model in models if not any(model.can_walk(pathway) for pathway in plan.pathways)]
    if idle:
        raise ConfigError(
            f"Expected models that can walk one of {', '.join(plan.pathways)}, got {idle[0]!r}, which can none of them "
            f"({plan.path})."
        )
    return found


def _panel(plan: SafetyPlan, cache: Path) -> tuple[Panel, JudgeError | None]:
    judges: dict[str, Judge] = {}
    for spec in plan.judges:
        judge: Judge = JUDGES.get(spec.kind)(spec.parameters, JudgeContext(spec.name, plan.folder, cache))
        judges[judge_digest(spec, judge)] = judge
    probe = None
    if plan.detector is not None:
        from forgery_det.safety.detectability import DetectorProbe

        watcher = DetectorProbe(plan.folder / plan.detector, JudgeContext(DETECTOR, plan.folder, cache))
        probe = (digest(DETECTOR, watcher.version()), watcher)
    if not plan.corruption.use:
        return Panel(judges, plan.combinations, None, probe), None
    from forgery_det.safety.corruption import CorruptionDetector, validate

    detector = CorruptionDetector(None, JudgeContext(CORRUPTION, plan.folder, cache))
    folder = None if plan.corruption.validation is None else plan.folder / plan.corruption.validation
    error = validate(folder, seed=plan.seed)
    return Panel(judges, plan.combinations, (digest(CORRUPTION, detector.version()), detector), probe), error


def _tables(
    items: list[Mapping[str, Any]], judgements: list[dict[str, Any]], plan: SafetyPlan
) -> tuple[pl.DataFrame, pl.DataFrame]:
    if not items:
        raise ConfigError(f"Expected answers, got none: the budget allows no request ({plan.path}: budget).")
    if plan.hash_prompts:
        items = [{**row, "text": None if row["text"] is None else _hashed(row["text"])} for row in items]
    return (
        checked(pl.DataFrame(items, schema=ITEM_SCHEMA), ITEM_SCHEMA, ITEMS_NAME),
        checked(pl.DataFrame(judgements, schema=JUDGEMENT_SCHEMA), JUDGEMENT_SCHEMA, JUDGEMENTS_NAME),
    )


def _hashed(text: str) -> str:
    return f"sha256:{sha256_bytes(text.encode('utf-8'))[:16]}"


def _write(
    out: Path, plan: SafetyPlan, tables: tuple[pl.DataFrame, pl.DataFrame], found: Findings, stopped: str, took_s: float
) -> None:
    items, judgements = tables
    write_table(items, out / ITEMS_NAME)
    write_table(judgements, out / JUDGEMENTS_NAME)
    write_table(results_frame(found.records), out / RESULTS_NAME)
    write_report(plan, found, out, stopped)
    config = asdict(plan) | {"path": str(plan.path)}
    facts = {"stopped": stopped, "n_items": len(items), "n_judgements": len(judgements)}
    RunRecord("safety", config, plan.seed, None, {"measure": took_s}, facts).write(out)
