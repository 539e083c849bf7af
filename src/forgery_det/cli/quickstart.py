"""`forgery-det quickstart`: the main job on real images, in one command.

Collect `samples`, audit, train `frozen_probe` on the diffusion generators, evaluate on the MLLM generators that
training never saw and by prompt length, write the report, and export a bundle that runs without torch. Each stage
resumes: the same command goes on where it was cut off.
"""

from __future__ import annotations

import time
from pathlib import Path

from forgery_det.audits import audit as run_audit
from forgery_det.cli.display import shown_progress
from forgery_det.cli.export import print_parity
from forgery_det.cli.tables import print_audit, print_collection, print_results
from forgery_det.core.shipped import shipped_config
from forgery_det.evaluation import evaluate as run_evaluate
from forgery_det.export.errors import ParityError
from forgery_det.export.run import export as run_export
from forgery_det.export.run import is_bundle_of
from forgery_det.recipes import collect as run_collect
from forgery_det.training import fit as run_fit

RECIPE = "samples"
FORMATS = ("onnx", "onnx_int8")


def quickstart(
    out: Path = Path("runs/quickstart"), quick: bool = False, seed: int = 0, cache: Path | None = None
) -> int:
    """Collect samples, audit, train, evaluate, report and export.

    Args:
        out: folder that gets dataset/, run/ and bundle/
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
    _announce(5, "Export a bundle, and prove that it answers as the detector does")
    _export(fitted.checkpoint, dataset, out / "bundle", run)
    print(f"Done in {time.monotonic() - started:.0f} s. Report: {run / 'report.html'}")
    return 0


def _announce(number: int, text: str) -> None:
    print(f"\n[{number}/5] {text}", flush=True)


def _export(checkpoint: Path, dataset: Path, bundle: Path, run: Path) -> None:
    if is_bundle_of(bundle, checkpoint):
        print(f"bundle: {bundle} (unchanged)")
        return
    for formats in (FORMATS, FORMATS[:1]):
        try:
            with shown_progress() as progress:
                summary = run_export(checkpoint, bundle, dataset=dataset, formats=formats, run=run, progress=progress)
            print_parity(summary)
            return
        except ParityError as error:
            # On a small val one image can make an int8 model lose too much; fp32 has to hold.
            if formats == FORMATS[:1]:
                raise
            print(f"{error}\nGoing on with {FORMATS[0]} alone.")


def _training(run: Path, dataset: Path, quick: bool, seed: int) -> list[str]:
    words = ["--config", str(shipped_config("experiment/quickstart.yaml")), "--run.out", str(run)]
    words += ["--data.dataset", str(dataset), "--seed_everything", str(seed)]
    return words + (["--trainer.max_epochs", "15"] if quick else [])
