"""Are the classes alike in each single fact of their files?

`file_facts` asks whether all facts together tell the label; this audit names the fact: size, aspect, codec, JPEG
quality, quantisation tables, chroma subsampling, progressive coding, sample format, colour profile, EXIF, bytes per
pixel. The distances are explained in `fact_distances`. A fact fails when its whole interval lies above `distance_limit`
and chance does not explain it. Bytes per pixel under one codec policy only warn (see `file_facts`), and so do the facts
of the original files, which alignment has removed. A fact that only JPEG has is compared among the JPEG files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forgery_det.audits.context import AuditContext
from forgery_det.audits.fact_distances import Distance, distances
from forgery_det.audits.facts import read_origins, read_stored_facts
from forgery_det.audits.file_facts import BYTES_PER_PIXEL, one_codec_policy
from forgery_det.audits.report import AuditFinding, Level

_SHARED_MEANING = "Give real and generated images one size and one codec policy (align in the recipe)."
_DENSITY_MEANING = (
    "The files share one codec policy, so bytes per pixel only say how busy a picture is; see thumbnail_content."
)
_ORIGIN_MEANING = (
    "Alignment took these facts from the files, but an earlier codec or resize can survive in the pixels. Prefer "
    "sources whose classes have the same history, or say in the report that they have not."
)


def histogram_distances(context: AuditContext) -> tuple[AuditFinding, ...]:
    """Return how far the classes differ in each fact: of the stored files, and of the originals where known."""
    sample = context.sample(context.options.max_images)
    stored = read_stored_facts(sample, context.manifest)
    mild = (BYTES_PER_PIXEL,) if one_codec_policy(context.manifest) else ()
    found = distances(stored, context.options.n_replicates, context.options.seed)
    findings = (_finding(context, "overall", "fail", found, stored.height, _SHARED_MEANING, mild),)
    origins, reason = read_origins(context, sample)
    if origins is None:
        detail = f"{reason}, so what the files were before alignment is unknown."
        missing = AuditFinding(
            "histogram_distances", "file=original", "not_estimable", None, None, None, None, 0, detail
        )
        return (*findings, missing)
    found = distances(origins, context.options.n_replicates, context.options.seed)
    return (*findings, _finding(context, "file=original", "warn", found, origins.height, _ORIGIN_MEANING, ()))


def _finding(
    context: AuditContext,
    where: str,
    level: Level,
    found: Sequence[Distance],
    n: int,
    meaning: str,
    mild: Sequence[str],
) -> AuditFinding:
    """Put all distances of one kind of file into one finding; its value is the worst of them."""
    limit = context.options.distance_limit
    levels: dict[str, Level] = {
        one.fact: ("warn" if one.fact in mild else level) if one.exceeds(limit) else "pass" for one in found
    }
    rows = tuple(_row(one, levels[one.fact]) for one in found)
    measured = [one for one in found if one.value is not None]
    if not measured:
        reason = found[0].note if found else "not estimable (no fact is known)"
        return AuditFinding(
            "histogram_distances", where, "not_estimable", None, None, None, limit, n, f"File facts: {reason}.", rows
        )
    order = {"fail": 2, "warn": 1}
    worst = max(measured, key=lambda one: (order.get(levels[one.fact], 0), one.value or 0.0))
    detail = _sentence(where, found, levels, worst, limit, meaning) + context.sample_note(n)
    return AuditFinding(
        "histogram_distances", where, levels[worst.fact], worst.value, worst.low, worst.high, limit, n, detail, rows
    )


def _sentence(
    where: str, found: Sequence[Distance], levels: dict[str, Level], worst: Distance, limit: float, meaning: str
) -> str:
    files = "original" if where == "file=original" else "stored"
    above = [one for one in found if levels[one.fact] != "pass"]
    if not above:
        return (
            f"No fact of the {files} files is shown to differ between the classes by more than {limit:g}; the farthest "
            f"is {worst.fact} at {worst.value:.2f}{_interval(worst)}."
        )
    told = "; ".join(
        f"{one.fact} {one.value:.2f}{_interval(one)} (real {one.told['real']}, generated {one.told['generated']})"
        for one in sorted(above, key=lambda one: -(one.value or 0.0))
    )
    if {levels[one.fact] for one in above} == {"warn"} and files == "stored":
        meaning = _DENSITY_MEANING
    return f"The {files} files of the classes differ by more than {limit:g} in: {told}. {meaning}"


def _interval(one: Distance) -> str:
    return "" if one.low is None else f" [{one.low:.2f}, {one.high:.2f}]"


def _row(one: Distance, level: Level) -> dict[str, Any]:
    return {
        "fact": one.fact,
        "distance": one.kind,
        "value": one.value,
        "ci_low": one.low,
        "ci_high": one.high,
        "p_holm": one.p_value,
        "wasserstein_sd": one.wasserstein,
        "n": one.n,
        **one.told,
        "level": "not_estimable" if one.value is None else level,
        "note": one.note,
    }
