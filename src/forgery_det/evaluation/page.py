"""From the outcome of an evaluation to `ReportData`: what the page shows, in the order in which it shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from forgery_det.core.manifest import Manifest
from forgery_det.core.runs import versions
from forgery_det.core.types import GENERATED, MetricRecord
from forgery_det.data.dataset import BadFile
from forgery_det.detectors.base import Detector
from forgery_det.evaluation.curves import logit_histogram, roc_lines
from forgery_det.evaluation.gallery import make_gallery
from forgery_det.evaluation.protocols.base import ProtocolResult
from forgery_det.evaluation.slice_metrics import GROUP_METRICS, METRIC_EXPLANATIONS, METRIC_TITLES
from forgery_det.evaluation.slices import Slice
from forgery_det.evaluation.thresholds import OPERATING_POINTS, Thresholds
from forgery_det.evaluation.verdict import Evidence, comparison_bars, make_verdict
from forgery_det.reporting.data import (
    SHORTCUT_METRIC,
    AuditRow,
    BadFileRow,
    ReportData,
    SliceGroup,
    SliceInfo,
    Threshold,
)

_GROUPS: Mapping[str, tuple[str, str]] = {
    "overall": (
        "Overall",
        "All real images of the split against all generated ones, and against those of seen and of held-out ones.",
    ),
    "generator": ("By generator", "Each generator's images against all real images of the split."),
    "paradigm": ("By paradigm", "How the images were made. An MLLM both understands and generates."),
    "decoder": ("By decoder", "The last component that made the pixels; its traces may be what a detector sees."),
    "prompt_words": (
        "By prompt length",
        "Words in the prompt, for generated images whose prompt is known. Bins may differ in generator as well as in "
        "length.",
    ),
}

_SHORTCUT_WORDS = "AUROC of a classifier on tiny thumbnails, from the audit: what the subject matter alone gives away"
_POINT_NAMES = {"fpr_1pct": "1 % FPR", "fpr_5pct": "5 % FPR", "balanced": "balanced"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that an evaluation found.

    Args:
        judged: Predictions of the judged split, joined with the manifest.
        manifest: The dataset.
        slices: Slices of `judged`.
        records: Metrics of the slices.
        thresholds: Thresholds and where they come from.
        seen: Generators seen in training, None when unknown.
        seen_source: Where that is known from.
        audit: Findings, None without an audit.
        bad_files: Images that could not be scored.
        detector: Registry name.
        temperature: Of the checkpoint, None when not calibrated.
        config: Resolved configuration of `evaluate`.
        protocols: What the protocols found, in the order in which they ran.
    """

    judged: pl.DataFrame
    manifest: Manifest
    slices: tuple[Slice, ...]
    records: tuple[MetricRecord, ...]
    thresholds: Thresholds
    seen: frozenset[str] | None
    seen_source: str
    audit: tuple[AuditRow, ...] | None
    bad_files: tuple[BadFile, ...]
    detector: str
    temperature: float | None
    config: Mapping[str, Any]
    protocols: tuple[ProtocolResult, ...] = ()

    def all_records(self) -> tuple[MetricRecord, ...]:
        """Return the rows of `results.parquet`: those of the slices, then those of each protocol."""
        return (*self.records, *(record for result in self.protocols for record in result.records))

    @property
    def split(self) -> str:
        """The judged split."""
        return str(self.config["split"])


def report_data(outcome: Outcome, heat_of: Detector | None = None) -> ReportData:
    """Return what the report of an evaluation shows; with a detector, its heat maps stand in the gallery."""
    gallery_size = outcome.config["gallery_size"]
    evidence = _evidence(outcome)
    shortcut = _shortcut_records(outcome.audit or ())
    name = outcome.manifest.name
    return ReportData(
        title=f"{outcome.detector} on {name}",
        dataset=f"{name}, split {outcome.split}",
        detector=outcome.detector,
        verdict=make_verdict(evidence),
        comparison=comparison_bars(evidence),
        groups=_groups(outcome.slices, with_shortcut=bool(shortcut)),
        records=(*outcome.records, *shortcut),
        metric_titles=METRIC_TITLES | {SHORTCUT_METRIC: "thumbnail only"},
        metric_explanations=METRIC_EXPLANATIONS | {SHORTCUT_METRIC: _SHORTCUT_WORDS},
        roc=roc_lines(outcome.judged, outcome.slices),
        histogram=logit_histogram(outcome.judged, outcome.seen),
        thresholds=_thresholds(outcome.thresholds),
        gallery=make_gallery(outcome.judged, outcome.manifest, outcome.thresholds, gallery_size, heat_of),
        audit=outcome.audit,
        bad_files=tuple(BadFileRow(bad.image_id, bad.path, bad.reason) for bad in outcome.bad_files),
        facts=_facts(outcome),
        config=outcome.config,
        versions=versions(),
        sections=tuple(result.section for result in outcome.protocols),
    )


def _evidence(outcome: Outcome) -> Evidence:
    generated = outcome.judged.filter(pl.col("label") == GENERATED)
    judged = set(outcome.manifest.subset(pl.col("split") == outcome.split).frame["image_id"])
    known = generated.filter(pl.col("prompt_words").fill_null(0) > 0)
    return Evidence(
        records=outcome.records,
        split=outcome.split,
        exposure_known=outcome.seen is not None,
        audit=outcome.audit,
        n_bad=sum(bad.image_id in judged for bad in outcome.bad_files),
        n_scored=outcome.judged.height,
        calibrated=outcome.temperature is not None,
        prompt_words_known=(known.height, generated.height),
        protocols=tuple(caveat for result in outcome.protocols for caveat in result.caveats),
    )


def _shortcut_records(audit: Sequence[AuditRow]) -> tuple[MetricRecord, ...]:
    """Return the audit's thumbnail AUROC of each generator, to stand beside the detector's."""
    return tuple(
        MetricRecord(SHORTCUT_METRIC, row.slice, row.value, row.ci_low, row.ci_high, row.n or 0, None)
        for row in audit
        if row.name == "thumbnail_content" and row.slice.startswith("generator=")
    )


def _groups(slices: Sequence[Slice], with_shortcut: bool) -> tuple[SliceGroup, ...]:
    groups = []
    for key, (title, explanation) in _GROUPS.items():
        members = tuple(
            SliceInfo(part.key, part.name, part.exposure, part.n_real, part.n_generated)
            for part in slices
            if part.group == key
        )
        metrics = GROUP_METRICS[key]
        if key == "generator" and with_shortcut:
            metrics = (metrics[0], SHORTCUT_METRIC, *metrics[1:])
        groups.append(SliceGroup(key, title, explanation, metrics, members))
    return tuple(groups)


def _thresholds(thresholds: Thresholds) -> tuple[Threshold, ...]:
    names = [*OPERATING_POINTS, *sorted(set(thresholds.value) - set(OPERATING_POINTS))]
    return tuple(
        Threshold(
            _POINT_NAMES.get(name, name), thresholds.value.get(name), thresholds.source, thresholds.reason.get(name, "")
        )
        for name in names
    )


def _facts(outcome: Outcome) -> dict[str, str]:
    n_generated = int((outcome.judged["label"] == GENERATED).sum())
    n_groups = outcome.judged["source_id"].n_unique()
    facts = {
        "Images": f"{outcome.judged.height - n_generated} real, {n_generated} generated, {n_groups} source_ids",
        "Intervals": f"95 %, {outcome.config['n_replicates']} bootstrap replicates of source_ids",
        "Seen generators from": outcome.seen_source,
    }
    if outcome.bad_files:
        n_bad = len(outcome.bad_files)
        facts["Not scored"] = "1 file" if n_bad == 1 else f"{n_bad} files"
    return facts
