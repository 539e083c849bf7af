"""Run the audits on a dataset and write `audit.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from forgery_det.audits.context import AuditContext, AuditOptions
from forgery_det.audits.registry import AUDITS
from forgery_det.audits.report import AuditFinding, AuditReport
from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError, ManifestError, UnknownNameError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.core.registry import did_you_mean

AuditFunction = Callable[[AuditContext], tuple[AuditFinding, ...]]


def audit(
    dataset: Path,
    *,
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
    device: str = "cpu",
    n_replicates: int = 1000,
    only: Sequence[str] | None = None,
    waivers: Mapping[str, str] | None = None,
    progress: ProgressSink = silent,
) -> AuditReport:
    """Audit a dataset and write `audit.json`; the report says whether it may be used.

    Args:
        dataset: Folder with a manifest.
        out: Folder for `audit.json`; None writes into the dataset.
        seed: Of folds, classifiers, samples and bootstrap.
        auroc_limit: A shortcut fails when the whole interval of its AUROC lies above this, in [0.5, 1).
        distance_limit: A file fact fails when the whole interval of the classes' distance lies above this, in [0, 1).
        max_images: The classifiers look at a seeded sample of at most this many images.
        check_files: The bytes of at most this many files are compared with the manifest; None for all.
        phash_distance: Images whose perceptual hashes differ in at most this many bits are called alike.
        crop_images: Crops are looked for among a seeded sample of at most this many images; None for all, 0 for none.
        prompt_similarity: Prompts whose words overlap by at least this share (Jaccard) are called alike, in (0, 1].
        noise_auroc: Labels are doubted only where the probe's AUROC lies wholly above this, in [0.5, 1).
        checkpoint: Detector for `reencode_shift`; without one that audit says nothing.
        reencode_limit: Largest shift of the detector's AUROC by a shared re-encoding, in [0, 0.5].
        batch_size: Images a forward pass of the detector.
        device: Where the detector runs: `cpu` or `cuda`.
        n_replicates: Bootstrap replicates of an interval.
        only: Names of the audits to run; None runs all.
        waivers: Audit name -> reason why its failures are accepted. They stay in the report, with the reason.
        progress: Told after each audit.

    Raises:
        ManifestError: There is no valid manifest, or it is empty.
        UnknownNameError: `only` or `waivers` names no audit.
        ConfigError: An option is out of range, a waiver has no reason, or there is no such checkpoint file.
        WeightsError: The checkpoint does not fit its detector.
    """
    waivers = _checked_waivers(waivers or {})
    options = AuditOptions(
        auroc_limit=auroc_limit,
        max_images=max_images,
        check_files=check_files,
        phash_distance=phash_distance,
        n_replicates=n_replicates,
        seed=seed,
        distance_limit=distance_limit,
        crop_images=crop_images,
        prompt_similarity=prompt_similarity,
        noise_auroc=noise_auroc,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        reencode_limit=reencode_limit,
        batch_size=batch_size,
        device=device,
    )
    names = AUDITS.names() if only is None else tuple(sorted(set(only)))
    functions: dict[str, AuditFunction] = {name: AUDITS.get(name) for name in names}
    manifest = Manifest.load(Path(dataset))
    if not len(manifest):
        raise ManifestError(f"Expected a dataset with images, got an empty manifest ({dataset}).")
    context = AuditContext(manifest, options)
    findings: list[AuditFinding] = []
    for done, (name, function) in enumerate(functions.items(), start=1):
        findings += [_waive(finding, waivers) for finding in function(context)]
        progress(Progress(f"audit {name}", done, len(functions), "audits"))
    report = AuditReport(
        dataset=str(dataset),
        manifest_hash=manifest.digest(),
        n_images=len(manifest),
        options=_recorded(options),
        findings=tuple(findings),
        waivers=waivers,
    )
    report.write(manifest.root if out is None else Path(out))
    return report


def _recorded(options: AuditOptions) -> dict[str, Any]:
    """Return the options as JSON values; a checkpoint is recorded by its path and its sha256."""
    values = asdict(options)
    if options.checkpoint is not None:
        values |= {"checkpoint": str(options.checkpoint), "checkpoint_sha256": sha256_file(options.checkpoint)}
    return values


def _checked_waivers(waivers: Mapping[str, str]) -> dict[str, str]:
    for name, reason in waivers.items():
        if name not in AUDITS:
            raise UnknownNameError(f"Unknown audit {name!r} in the waivers: {did_you_mean(name, AUDITS)}")
        if not str(reason).strip():
            raise ConfigError(f"Expected a reason for the waiver of {name!r}, got none (waivers of the audit).")
    return dict(waivers)


def _waive(finding: AuditFinding, waivers: Mapping[str, str]) -> AuditFinding:
    if finding.level == "fail" and finding.name in waivers:
        return replace(finding, waived=waivers[finding.name])
    return finding
