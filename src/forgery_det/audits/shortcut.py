"""From features to findings: what all classifier audits share.

The overall finding comes first, then one for each split, and for each paradigm and generator (against all real images)
that has enough groups; those that have not are named together in one last finding, `not_estimable`. All use the logits
of the one cross-validation over the whole sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from forgery_det.audits.context import AuditContext
from forgery_det.audits.probe import MakeModel, is_inverted_shortcut, run_probe
from forgery_det.audits.report import AuditFinding, Level
from forgery_det.core.types import GENERATED, REAL, SPLITS
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import FloatArray

NEGATIVE_BIAS = (
    "A value under 0.5 is no sign of a shortcut by itself: where there is nothing to learn, grouped cross-validation "
    "scatters widely and leans below 0.5 in small samples."
)
SMALL = "size=too_small"
_GROUPS = ("split=", "paradigm=", "generator=")
SHOWN_NAMES = 10


@dataclass(frozen=True, slots=True)
class Shortcut:
    """What a classifier audit asks.

    Args:
        name: Registry name.
        evidence: What the classifier sees, as the subject of a sentence ("Width, height and codec alone").
        meaning: A sentence on what it means if that tells the label, and what to do.
        level: Level of a finding above the limit.
        make_model: The classifier.
    """

    name: str
    evidence: str
    meaning: str
    level: Literal["fail", "warn"]
    make_model: MakeModel


@dataclass(frozen=True, slots=True)
class Measured:
    """How well some features tell the label in one slice."""

    slice: str
    estimate: Estimate
    inverted: bool = False


def shortcut_findings(
    context: AuditContext, shortcut: Shortcut, frame: pl.DataFrame, feature_NF: FloatArray
) -> tuple[AuditFinding, ...]:
    """Return the findings of one shortcut; `frame` holds the manifest rows behind the features."""
    return gathered(
        judged(context, shortcut, measured) for measured in measure(context, shortcut.make_model, frame, feature_NF)
    )


def gathered(findings: Iterable[AuditFinding]) -> tuple[AuditFinding, ...]:
    """Put the slices that are too small into one finding at the end, `size=too_small`; its rows name them all."""
    found = tuple(findings)
    small = [finding for finding in found if finding.level == "not_estimable" and finding.slice.startswith(_GROUPS)]
    if not small:
        return found
    names = [finding.slice for finding in small]
    more = (
        f" and {len(names) - SHOWN_NAMES} more (rows of this finding in audit.json)" if len(names) > SHOWN_NAMES else ""
    )
    detail = f"Too few source_ids to say anything: {', '.join(names[:SHOWN_NAMES])}{more}."
    rows = tuple({"slice": finding.slice, "n": finding.n, "detail": finding.detail} for finding in small)
    n = max(finding.n for finding in small)
    together = AuditFinding(small[0].name, SMALL, "not_estimable", None, None, None, None, n, detail, rows)
    return (*(finding for finding in found if finding not in small), together)


def measure(
    context: AuditContext, make_model: MakeModel, frame: pl.DataFrame, feature_NF: FloatArray
) -> tuple[Measured, ...]:
    """Cross-validate once and estimate the AUROC overall and in each slice; missing where groups are too few."""
    label_N = frame["label"].to_numpy().astype(np.int64)
    group_N = frame["source_id"].to_numpy().astype(np.str_)
    options = context.options
    try:
        probe = run_probe(feature_NF, label_N, group_N, make_model, options.seed)
    except NotEstimableError as error:
        return (Measured("overall", Estimate.missing(frame.height, str(error))),)
    overall = probe.estimate(None, n_replicates=options.n_replicates, seed=options.seed)
    inverted = (
        overall.ci_high is not None
        and overall.ci_high < 1.0 - options.auroc_limit
        and is_inverted_shortcut(feature_NF, probe, make_model, options.seed)
    )
    found = [Measured("overall", overall, inverted)]
    for name, keep_N in slices(frame):
        estimate = probe.estimate(keep_N, n_replicates=options.n_replicates, seed=options.seed)
        found.append(Measured(name, estimate))
    return tuple(found)


def slices(frame: pl.DataFrame) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield each split, and each paradigm and generator with all real images, where there are several of the kind.

    Example:
        >>> frame = pl.DataFrame({"label": [0, 1, 1], "generator": ["camera", "a", "b"]})
        >>> frame = frame.with_columns(split=pl.lit("train"), paradigm=pl.lit("gan"))
        >>> [(name, keep.tolist()) for name, keep in slices(frame)]
        [('generator=a', [True, True, False]), ('generator=b', [True, False, True])]
    """
    present = set(frame["split"])
    if len(present) > 1:
        for split in SPLITS:
            if split in present:
                yield f"split={split}", frame["split"].to_numpy() == split
    is_real_N = frame["label"].to_numpy() == REAL
    for column in ("paradigm", "generator"):
        kinds = sorted(set(frame.filter(pl.col("label") == GENERATED)[column]))
        if len(kinds) > 1:
            for kind in kinds:
                yield f"{column}={kind}", is_real_N | (frame[column].to_numpy() == kind)


def judged(context: AuditContext, shortcut: Shortcut, measured: Measured) -> AuditFinding:
    """Hold an estimate against the limit and put it into words."""
    limit, estimate = context.options.auroc_limit, measured.estimate
    level = shortcut.level if measured.inverted else level_of(estimate, limit, shortcut.level)
    detail = _sentence(shortcut, estimate, level, limit, measured.inverted)
    if measured.slice == "overall":
        detail += context.sample_note(estimate.n)
    return AuditFinding(
        name=shortcut.name,
        slice=measured.slice,
        level=level,
        value=estimate.value,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        limit=limit,
        n=estimate.n,
        detail=detail,
    )


def level_of(estimate: Estimate, limit: float, above: Literal["fail", "warn"]) -> Level:
    """Return `above` if the whole interval lies above the limit, else `pass`, or `not_estimable`.

    Example:
        >>> level_of(Estimate(0.7, 0.62, 0.78, 90), 0.6, "fail"), level_of(Estimate(0.7, 0.58, 0.82, 30), 0.6, "fail")
        ('fail', 'pass')
    """
    if estimate.value is None:
        return "not_estimable"
    # Without an interval all replicates agreed: identical facts give exactly 0.5, and that is a pass.
    low = estimate.value if estimate.ci_low is None else estimate.ci_low
    return above if low > limit else "pass"


def _sentence(shortcut: Shortcut, estimate: Estimate, level: Level, limit: float, inverted: bool) -> str:
    if estimate.value is None:
        return f"{shortcut.evidence}: {estimate.note}."
    note = f" ({estimate.note})" if estimate.note else ""
    interval = "" if estimate.ci_low is None else f" [{estimate.ci_low:.2f}, {estimate.ci_high:.2f}]"
    told = f"AUROC {estimate.value:.2f}{interval}{note}"
    if inverted:
        return (
            f"{shortcut.evidence} tell the label within groups of sources, but with opposite sign between them "
            f"({told}, below every permutation of the labels). {shortcut.meaning}"
        )
    if level in ("fail", "warn"):
        return f"{shortcut.evidence} tell real from generated with {told}, wholly above {limit:g}. {shortcut.meaning}"
    if estimate.ci_low is not None and estimate.ci_low > 0.5:
        return f"{shortcut.evidence} tell real from generated a little: {told}, not wholly above {limit:g}."
    if estimate.ci_high is not None and estimate.ci_high > limit:
        open_end = f"; the interval reaches above {limit:g}, so a shortcut is not excluded"
    else:
        open_end = f", limit {limit:g}"
    bias = f" {NEGATIVE_BIAS}" if estimate.value < 0.5 else ""
    return f"{shortcut.evidence} are not shown to tell real from generated: {told}{open_end}.{bias}"
