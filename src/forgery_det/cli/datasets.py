"""`forgery-det collect` and `forgery-det audit`."""

from __future__ import annotations

from pathlib import Path

from forgery_det.audits import AuditReport
from forgery_det.audits import audit as run_audit
from forgery_det.cli.display import shown_progress
from forgery_det.cli.tables import print_audit, print_collection
from forgery_det.recipes import collect as run_collect


def collect(recipe: str, out: Path, cache: Path | None = None) -> int:
    """Build a dataset, or resume one that was interrupted.

    Args:
        recipe: name of a shipped recipe (`forgery-det list recipes`) or path of a recipe.yaml
        out: dataset folder
        cache: folder of downloads; $FORGERY_DET_CACHE or ~/.cache/forgery-det by default
    """
    with shown_progress() as progress:
        summary = run_collect(recipe, out, cache=cache, progress=progress)
    print_collection(summary)
    return 0


def audit(
    dataset: Path,
    out: Path | None = None,
    seed: int = 0,
    auroc_limit: float = 0.6,
    only: list[str] | None = None,
    waivers: dict[str, str] | None = None,
) -> int:
    """Audit a dataset: shortcuts, leaks, duplicates, missing files.

    Args:
        dataset: dataset folder
        out: folder for audit.json; the dataset by default
        seed: of folds, classifiers and bootstrap
        auroc_limit: a shortcut fails when the whole interval of its AUROC lies above this
        only: names of the audits to run; all by default
        waivers: audit name -> reason why its failure is accepted; printed in every report
    """
    with shown_progress() as progress:
        report: AuditReport = run_audit(
            dataset, out=out, seed=seed, auroc_limit=auroc_limit, only=only, waivers=waivers, progress=progress
        )
    print_audit(report)
    return 0 if report.passed else 1
