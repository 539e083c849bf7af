"""What a report shows, as frozen values: reporting lays them out and computes nothing.

Evaluation fills `ReportData`; whoever wants the same page from another source fills the same fields. Texts that come
from a dataset (prompts, paths, generator names) are untrusted and are escaped where they are written, never here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from forgery_det.core.types import MetricRecord
from forgery_det.reporting.sections import Section

SHORTCUT_METRIC = "audit@thumbnail_content"
"""Metric name of the AUROC that thumbnails alone reach on a slice, so that tables and figures show it."""

Level = Literal["ok", "doubt", "problem"]
"""How far a reader may trust: nothing found against it, read with doubt, do not rely on it."""

Exposure = Literal["all", "seen", "held_out", "real"]
"""Which generators are behind a number: every one, those the detector was trained on, those it never saw, none."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """One thing a reader must know before believing the numbers."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The summary in plain words.

    Args:
        level: The worst level among the caveats.
        headline: One sentence with the main number, its interval and its n.
        caveats: Most serious first.
    """

    level: Level
    headline: str
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """One value with its interval, for the comparison with shortcuts.

    Args:
        name: What was measured.
        role: `detector`, or `shortcut` for what can be had without a detector.
        value: AUROC; None when it is not estimable.
        ci_low: Lower end of the interval.
        ci_high: Upper end of the interval.
        n: Number of images.
        explanation: What it looked at.
    """

    name: str
    role: Literal["detector", "shortcut"]
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """A set of images that metrics were computed on.

    Args:
        key: Value of `slice` in the records, for instance `generator=janus-pro-7b`.
        name: What the table shows, for instance `janus-pro-7b`.
        exposure: Which generators are in it.
        n_real: Number of real images.
        n_generated: Number of generated images.
    """

    key: str
    name: str
    exposure: Exposure
    n_real: int
    n_generated: int


@dataclass(frozen=True, slots=True)
class SliceGroup:
    """One table: slices of one kind, and the metrics that are its columns."""

    key: str
    title: str
    explanation: str
    metrics: tuple[str, ...]
    slices: tuple[SliceInfo, ...]


@dataclass(frozen=True, slots=True)
class RocLine:
    """A ROC curve: FPR and TPR, both ascending in [0, 1]."""

    name: str
    exposure: Exposure
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HistogramSeries:
    """Counts between consecutive edges of one group of images."""

    name: str
    exposure: Exposure
    count: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Logit histograms over common `edge` values (one more than the counts)."""

    edge: tuple[float, ...]
    series: tuple[HistogramSeries, ...]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A decision threshold: `logit >= threshold` means generated; `source` says what it was fitted on."""

    name: str
    threshold: float | None
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One picture of the gallery.

    Args:
        kind: `false_alarm`: a real image with a high logit; `miss`: a generated image with a low logit.
        image_id: sha256 of the image.
        path: Path in the dataset; untrusted text.
        generator: Generator, or `camera`.
        source: Where the file came from.
        logit: Higher = generated.
        score: Calibrated probability in [0, 1].
        wrong: Whether the threshold `threshold_name` decides wrongly; None without a threshold.
        prompt: Prompt where known; untrusted text.
        thumbnail: Encoded WebP, JPEG or PNG bytes; empty when the image could not be read again.
        heat: The same of its heat map; empty without one.
        heat_change: Largest change of the logit by covering one part; None without a heat map.
    """

    kind: Literal["false_alarm", "miss"]
    image_id: str
    path: str
    generator: str
    source: str
    logit: float
    score: float
    wrong: bool | None
    prompt: str | None
    thumbnail: bytes
    heat: bytes = b""
    heat_change: float | None = None


@dataclass(frozen=True, slots=True)
class Gallery:
    """The worst mistakes, worst first, and how they were chosen."""

    explanation: str
    false_alarms: tuple[Mistake, ...] = ()
    misses: tuple[Mistake, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One finding of `audit.json`.

    Args:
        name: Registry name of the audit.
        slice: `overall`, or `key=value` as in the results.
        level: `fail`, `warn`, `pass` or `not_estimable`.
        value: The measured number.
        ci_low: Lower end of its interval.
        ci_high: Upper end of its interval.
        limit: What it is held against.
        n: Images behind it.
        detail: What it means.
        waived: Reason for which a failure is accepted; empty without one.
    """

    name: str
    slice: str
    level: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    limit: float | None
    n: int | None
    detail: str
    waived: str = ""


@dataclass(frozen=True, slots=True)
class BadFileRow:
    """A file that could not be scored, and why."""

    image_id: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything a report shows.

    Args:
        title: Name of the page.
        dataset: Name of the dataset and of the evaluated split.
        detector: Name of the detector.
        verdict: Summary in plain words.
        comparison: The detector beside what shortcuts reach; the first bar is the detector's main number.
        groups: Tables, in the order in which they are shown.
        records: All results; a table cell is found by metric and slice.
        metric_titles: Metric name -> column title.
        metric_explanations: Metric name -> one sentence.
        roc: ROC curves.
        histogram: Logit histograms; None when nothing was scored.
        thresholds: Thresholds and where they come from.
        gallery: Worst mistakes.
        audit: Findings; None when no audit was given.
        bad_files: Files that could not be scored.
        facts: Short facts for the head of the page, name -> text.
        config: The resolved configuration.
        versions: Package -> version.
        sections: What the protocols show, in order.
    """

    title: str
    dataset: str
    detector: str
    verdict: Verdict
    comparison: tuple[Bar, ...]
    groups: tuple[SliceGroup, ...]
    records: tuple[MetricRecord, ...]
    metric_titles: Mapping[str, str]
    metric_explanations: Mapping[str, str]
    roc: tuple[RocLine, ...]
    histogram: Histogram | None
    thresholds: tuple[Threshold, ...]
    gallery: Gallery
    audit: tuple[AuditRow, ...] | None
    bad_files: tuple[BadFileRow, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
