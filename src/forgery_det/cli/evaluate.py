"""`forgery-det evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from forgery_det.cli.display import shown_progress
from forgery_det.cli.tables import print_results
from forgery_det.evaluation import evaluate as run_evaluate
from forgery_det.evaluation.protocols.run import DEFAULT_PROTOCOLS
from forgery_det.evaluation.wandb_log import log_run


def evaluate(
    checkpoint: Path,
    dataset: Path,
    out: Path,
    split: Literal["train", "val", "test"] = "test",
    audit: Path | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    n_replicates: int = 1000,
    seed: int = 0,
    min_per_class: int = 5,
    prompt_word_bins: tuple[int, ...] = (20, 60, 150),
    protocols: dict[str, dict[str, Any] | None] | None = None,
    perturbations: dict[str, list[int] | Literal["all"]] | None = None,
    heatmaps: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    wandb: bool = False,
    wandb_project: str = "forgery-det",
    wandb_mode: Literal["offline", "online"] = "offline",
) -> int:
    """Score a dataset and write predictions, results with intervals, and the report.

    Args:
        checkpoint: checkpoint (.ckpt)
        dataset: dataset folder
        out: run folder; an interrupted evaluation in it is resumed
        split: split that is judged; thresholds never come from test
        audit: audit.json of the dataset, shown in the report
        batch_size: images a forward pass
        num_workers: loader processes; 0 decodes in this one
        n_replicates: bootstrap replicates of the intervals
        seed: of the bootstrap
        min_per_class: fewest images of a class for a metric
        prompt_word_bins: last word count of each prompt-length bin but the open last one
        protocols: protocol name -> options; by default those that need no further scoring, each with its defaults
        perturbations: perturbation name -> severities or all: copies of the judged split that are scored as well
        heatmaps: show in the gallery which part of each picture drives the logit; slow, needs the extra explain
        device: auto, cpu or cuda
        wandb: log results, figures and report to wandb as well
        wandb_project: project at wandb
        wandb_mode: offline leaves the wandb run in the run folder until `wandb sync` sends it
    """
    with shown_progress() as progress:
        run = run_evaluate(
            checkpoint,
            dataset,
            out,
            split=split,
            audit=audit,
            batch_size=batch_size,
            num_workers=num_workers,
            n_replicates=n_replicates,
            seed=seed,
            min_per_class=min_per_class,
            prompt_word_bins=prompt_word_bins,
            protocols=DEFAULT_PROTOCOLS if protocols is None else protocols,
            perturbations=perturbations,
            heatmaps=heatmaps,
            device=device,
            progress=progress,
        )
    print_results(run)
    if wandb:
        print(f"wandb: {log_run(run, wandb_project, wandb_mode)}")
    return 0
