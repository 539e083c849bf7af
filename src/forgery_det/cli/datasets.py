"""`forgery-det collect` and `forgery-det audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from forgery_det.audits import AuditReport
from forgery_det.audits import audit as run_audit
from forgery_det.cli.display import shown_progress
from forgery_det.cli.plan_table import print_plan
from forgery_det.cli.tables import print_audit, print_collection
from forgery_det.core.errors import ConfigError
from forgery_det.recipes import collect as run_collect
from forgery_det.recipes.plan import plan as make_plan


def collect(
    recipe: str,
    out: Path,
    cache: Path | None = None,
    plan: bool = False,
    shards: float | None = None,
    executor: Literal["local", "ray"] | None = None,
    workers: int | None = None,
) -> int:
    """Build a dataset, or resume one that was interrupted.

    Args:
        recipe: name of a shipped recipe (`forgery-det list recipes`) or path of a recipe.yaml
        out: dataset folder
        cache: folder of downloads; $FORGERY_DET_CACHE or ~/.cache/forgery-det by default
        plan: print what would be made, how long it takes and what it costs, and change nothing
        shards: size of WebDataset shards in MB; without it, one file an image
        executor: where images are generated, instead of what the recipe says
        workers: number of workers of `--executor ray`
    """
    if workers is not None and executor != "ray":
        raise ConfigError("Expected `--workers` together with `--executor ray`, got it alone.")
    chosen = None if executor is None else {"kind": executor} | ({} if workers is None else {"workers": workers})
    if plan:
        print_plan(make_plan(recipe, out, cache=cache, executor=chosen))
        return 0
    with shown_progress() as progress:
        summary = run_collect(recipe, out, cache=cache, shard_mb=shards, executor=chosen, progress=progress)
    print_collection(summary)
    return 0


def audit(
    dataset: Path,
    out: Path | None = None,
    seed: int = 0,
    auroc_limit: float = 0.6,
    distance_limit: float = 0.2,
    max_images: int = 5000,
    check_files: int | None = 2000,
    phash_distance: int = 4,
    crop_images: int | None = 10_000,
    prompt_similarity: float = 0.8,
    noise_auroc: float = 0.7,
    checkpoint: Path | None = None,
    reencode_limit: float = 0.05,
    batch_size: int = 32,
    device: Literal["cpu", "cuda"] = "cpu",
    n_replicates: int = 1000,
    only: list[str] | None = None,
    waivers: dict[str, str] | None = None,
) -> int:
    """Audit a dataset: shortcuts, leaks, duplicates, missing files (docs/audits.md).

    Args:
        dataset: dataset folder
        out: folder for audit.json; the dataset by default
        seed: of folds, classifiers, samples and bootstrap
        auroc_limit: a shortcut fails when the whole interval of its AUROC lies above this
        distance_limit: a file fact fails when the whole interval of the classes' distance lies above this
        max_images: images that the classifiers look at, a seeded sample
        check_files: files whose bytes are compared with the manifest; null for all
        phash_distance: bits in which the perceptual hashes of copies may differ
        crop_images: images among which crops are looked for; null for all, 0 for none
        prompt_similarity: share of words (Jaccard) from which on two prompts are alike
        noise_auroc: labels are doubted only where the probe's AUROC lies wholly above this
        checkpoint: detector for reencode_shift; without one that audit says nothing
        reencode_limit: largest shift of that detector's AUROC when all images are saved again
        batch_size: images a forward pass of the detector
        device: cpu or cuda, for the detector
        n_replicates: bootstrap replicates of the intervals
        only: names of the audits to run; all by default
        waivers: audit name -> reason why its failure is accepted; printed in every report
    """
    with shown_progress() as progress:
        report: AuditReport = run_audit(
            dataset,
            out=out,
            seed=seed,
            auroc_limit=auroc_limit,
            distance_limit=distance_limit,
            max_images=max_images,
            check_files=check_files,
            phash_distance=phash_distance,
            crop_images=crop_images,
            prompt_similarity=prompt_similarity,
            noise_auroc=noise_auroc,
            checkpoint=checkpoint,
            reencode_limit=reencode_limit,
            batch_size=batch_size,
            device=device,
            n_replicates=n_replicates,
            only=only,
            waivers=waivers,
            progress=progress,
        )
    print_audit(report)
    return 0 if report.passed else 1
