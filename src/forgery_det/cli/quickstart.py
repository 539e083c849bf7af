"""`forgery-det quickstart`: the main job on real images, in one command.

Collect `samples`, audit, train `frozen_probe` on the diffusion generators, evaluate on the MLLM generators that
training never saw and by prompt length, and write the report. Each stage resumes: the same command goes on where it
was cut off.
"""

from __future__ import annotations

import time
from pathlib import Path

from forgery_det.audits import audit as run_audit
from forgery_det.cli.display import shown_progress
from forgery_det.cli.tables import print_audit, print_collection, print_results
from forgery_det.core.shipped import shipped_config
from forgery_det.evaluation import evaluate as run_evaluate
from forgery_det.recipes import collect as run_collect
from forgery_det.training import fit as run_fit

RECIPE = "samples"


def quickstart(
    out: Path = Path("runs/quickstart"), quick: bool = False, seed: int = 0, cache: Path | None = None
) -> int:
    """Collect samples, audit, train, evaluate and report.

    Args:
        out: folder that gets dataset/ and run/
        quick: fewer epochs and bootstrap replicates, for a look or for CI; the intervals are coarser
        seed: of training and bootstrap
        cache: folder of downloads; $FORGERY_DET_CACHE or ~/.cache/forgery-det by default
    """
    started = time.monotonic()
    dataset, run = out / "dataset", out / "run"
    n_replicates = 200 if quick else 1000
    _announce(1, f"Collect the recipe `{RECIPE}`")
    with shown_progress() as progress:
        summary = run_collect(RECIPE, dataset, cache=cache, progress=progress)
    print_collection(summary)
    _announce(2, "Audit: can it be solved without looking at the content?")
    with shown_progress() as progress:
        report = run_audit(dataset, seed=seed, n_replicates=n_replicates, progress=progress)
    print_audit(report)
    _announce(3, "Train a linear head on frozen features")
    with shown_progress() as progress:
        fitted = run_fit(_training(run, dataset, quick, seed), progress)
    _announce(4, "Evaluate on held-out generators and by prompt length")
    with shown_progress() as progress:
        run_evaluate(
            fitted.checkpoint, dataset, run, audit=dataset, n_replicates=n_replicates, seed=seed, device="cpu",
            progress=progress,
        )  # fmt: skip
    print_results(run)
    print(f"Done in {time.monotonic() - started:.0f} s. Report: {run / 'report.html'}")
    return 0


def _announce(number: int, text: str) -> None:
    print(f"\n[{number}/4] {text}", flush=True)


def _training(run: Path, dataset: Path, quick: bool, seed: int) -> list[str]:
    words = ["--config", str(shipped_config("experiment/quickstart.yaml")), "--run.out", str(run)]
    words += ["--data.dataset", str(dataset), "--seed_everything", str(seed)]
    return words + (["--trainer.max_epochs", "15"] if quick else [])
