"""`forgery-det compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from forgery_det.cli.display import shown_progress
from forgery_det.cli.tables import print_comparison
from forgery_det.evaluation.compare import compare as run_compare
from forgery_det.evaluation.wandb_log import log_run


def compare(
    runs: list[Path],
    out: Path,
    names: list[str] | None = None,
    datasets: list[Path] | None = None,
    images: str = "overall",
    operating_point: Literal["fpr_1pct", "fpr_5pct", "balanced"] = "fpr_5pct",
    alpha: float = 0.05,
    n_replicates: int = 1000,
    seed: int = 0,
    min_per_class: int = 5,
    wandb: bool = False,
    wandb_project: str = "forgery-det",
    wandb_mode: Literal["offline", "online"] = "offline",
) -> int:
    """Compare evaluations on the same images: paired tests, significance groups, leaderboard.

    Args:
        runs: run folders of `forgery-det evaluate`, at least two
        out: folder of the comparison
        names: what to call the detector of each run, in order; equal names on several datasets are one detector
        datasets: where datasets lie now, if they were moved since
        images: generated images to compare on: overall, exposure=held_out, or a filter such as paradigm=mllm
        operating_point: whose decisions are compared
        alpha: chance of a single false claim among all comparisons
        n_replicates: bootstrap replicates of the intervals
        seed: of the bootstrap
        min_per_class: fewest images of a class for a metric
        wandb: log results, figures and page to wandb as well
        wandb_project: project at wandb
        wandb_mode: offline leaves the wandb run in the folder until `wandb sync` sends it
    """
    with shown_progress() as progress:
        folder = run_compare(
            runs,
            out,
            names=names,
            datasets=datasets or (),
            images=images,
            operating_point=operating_point,
            alpha=alpha,
            n_replicates=n_replicates,
            seed=seed,
            min_per_class=min_per_class,
            progress=progress,
        )
    print_comparison(folder)
    if wandb:
        print(f"wandb: {log_run(folder, wandb_project, wandb_mode)}")
    return 0
