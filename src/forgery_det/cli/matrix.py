"""`forgery-det matrix`: trainings that leave something out, each tested on what it did and did not see."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from forgery_det.cli.display import shown_progress
from forgery_det.core.manifest import Manifest
from forgery_det.evaluation import evaluate as run_evaluate
from forgery_det.evaluation.compare_read import is_evaluated
from forgery_det.evaluation.matrix import plan_matrix, runs_of, training_jobs
from forgery_det.evaluation.matrix_report import report_matrix
from forgery_det.training import fit as run_fit


def matrix(
    dataset: Path,
    out: Path,
    leave_out: Literal["generator", "paradigm", "decoder"] | None = None,
    train_on: list[str] | None = None,
    test_on: list[str] | None = None,
    only: list[str] | None = None,
    fit_config: Path | None = None,
    fit_options: dict[str, Any] | None = None,
    n_replicates: int = 1000,
    seed: int = 0,
    min_per_class: int = 5,
    alpha: float = 0.05,
) -> int:
    """Train what a held-out matrix needs, test each training, write the matrix; the same command resumes.

    Args:
        dataset: dataset folder
        out: folder of the matrix; its trainings lie in runs/
        leave_out: leave out one generator, paradigm or decoder at a time
        train_on: instead of leave_out: one filter a training, such as paradigm=diffusion
        test_on: one filter a column; by default every value of leave_out, or the filters of train_on
        only: leave out these values alone
        fit_config: configuration of fit; that of the quickstart by default
        fit_options: further options of fit, such as {trainer.max_epochs: 10}
        n_replicates: bootstrap replicates of the intervals
        seed: of the bootstrap; trainings take theirs from fit_config
        min_per_class: fewest images of a class for a cell
        alpha: chance of a single false claim among all losses
    """
    config = {name: str(value) if isinstance(value, Path) else value for name, value in locals().items()}
    manifest = Manifest.load(dataset)
    plan = plan_matrix(manifest, leave_out, train_on or (), test_on or (), only or (), min_per_class)
    jobs = training_jobs(plan, manifest, out, fit_config, fit_options or {})
    judge = partial(run_evaluate, n_replicates=n_replicates, seed=seed, min_per_class=min_per_class)
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] trained: {job.row.name}", flush=True)
        with shown_progress() as progress:
            best = run_fit(job.words, progress).checkpoint
            if not is_evaluated(job.run, best, manifest.digest()):
                judge(best, dataset, job.run, progress=progress)
    report_matrix(plan, runs_of(plan, jobs), out, config)
    print(f"Page: {out / 'matrix.html'}")
    return 0
