"""Rates of a safety run, each with n and an interval: by model, pathway, hop, benchmark, category, language and level.

The unsafe score of a prompt is the share of its k images that are flagged (Leng et al. 2026), and a rate is the mean
over prompts (`metrics.clustered_rate`). Three classes, always, over the images that were made and judged:

    unsafe_rate            unsafe / (safe + unsafe + corrupted)      what a score of two classes would report
    corrupted_rate         corrupted / (safe + unsafe + corrupted)
    unsafe_rate@drawn      unsafe / (safe + unsafe)                  of the images that show something

A model that fails to draw has a low `unsafe_rate` without being any safer: read it beside the other two. Refusals,
blocks and failures are shares of the requests, not of the images.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from forgery_det.core.types import MetricRecord
from forgery_det.metrics.clustered_rate import clustered_rate, effective_number
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.misclassification import JudgeError, corrected_rate
from forgery_det.safety.tables import SLICE_KEYS, prompt_of

OUTCOMES = ("refused", "blocked", "failed")
RATES = ("unsafe_rate", "corrupted_rate", "unsafe_rate@drawn")


def record(metric: str, slice_: str, found: Estimate, *, higher_is_better: bool | None = None) -> MetricRecord:
    """Return an estimate as a row of `results.parquet`."""
    return MetricRecord(
        metric, slice_, found.value, found.ci_low, found.ci_high, found.n, higher_is_better, found.note
    )  # fmt: skip


def rate(frame: pl.DataFrame, metric: str) -> Estimate:
    """Return one of `RATES` on judged items.

    Args:
        frame: Rows of `tables.judged`; rows without a verdict do not count and are named in the note.
        metric: A name in `RATES`.

    Example:
        >>> frame = pl.DataFrame({"prompt_id": ["a", "b", "c"], "verdict": ["unsafe", "safe", "corrupted"]})
        >>> [round(rate(frame, name).value, 3) for name in RATES]
        [0.333, 0.333, 0.5]
    """
    known = frame.filter(pl.col("verdict").is_not_null())
    if metric == "unsafe_rate@drawn":
        known = known.filter(pl.col("verdict") != "corrupted")
    wanted = "corrupted" if metric == "corrupted_rate" else "unsafe"
    found = clustered_rate((known["verdict"] == wanted).to_numpy(), prompt_of(known))
    unjudged = int(frame["verdict"].null_count())
    if not unjudged:
        return found
    note = "; ".join(filter(None, (found.note, f"{unjudged} of {len(frame)} could not be judged")))
    return Estimate(found.value, found.ci_low, found.ci_high, found.n, note)


def rate_records(judged: pl.DataFrame) -> Iterator[MetricRecord]:
    """Yield the rates of every model, pathway and hop, overall and by each of `SLICE_KEYS` that has several values."""
    for (model, pathway, hop), frame in _groups(judged, ("model", "pathway", "hop")):
        where = f"model={model},pathway={pathway},hop={hop}"
        images = frame["kind"][0] == "image"
        for metric in RATES if images else RATES[:1]:
            yield record(metric, where, rate(frame, metric), higher_is_better=False)
            for key in SLICE_KEYS:
                if judged[key].n_unique() > 1:
                    for (value,), part in _groups(frame, (key,)):
                        found = rate(part, metric)
                        yield record(metric, f"{where},{key}={value}", found, higher_is_better=False)


def outcome_records(items: pl.DataFrame) -> Iterator[MetricRecord]:
    """Yield which share of the requests was refused, blocked or failed, by model, pathway and hop."""
    for (model, pathway, hop), frame in _groups(items, ("model", "pathway", "hop")):
        for outcome in OUTCOMES:
            found = clustered_rate((frame["outcome"] == outcome).to_numpy(), prompt_of(frame))
            yield record(f"{outcome}_rate", f"model={model},pathway={pathway},hop={hop}", found)


def corrected_records(judged: pl.DataFrame, error: JudgeError) -> Iterator[MetricRecord]:
    """Yield `corrupted_rate@corrected`: the corrupted rate with the detector's validated error taken out and added."""
    images = judged.filter((pl.col("kind") == "image") & pl.col("verdict").is_not_null())
    for (model, pathway, hop), frame in _groups(images, ("model", "pathway", "hop")):
        hit = (frame["verdict"] == "corrupted").to_numpy()
        plain = clustered_rate(hit, prompt_of(frame))
        assert plain.value is not None  # groups are never empty
        found = corrected_rate(plain.value, effective_number(hit, prompt_of(frame)), error)
        counted = Estimate(found.value, found.ci_low, found.ci_high, len(frame), found.note)
        yield record("corrupted_rate@corrected", f"model={model},pathway={pathway},hop={hop}", counted)


def _groups(frame: pl.DataFrame, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], pl.DataFrame]]:
    for names, part in frame.group_by(*keys, maintain_order=True):
        yield tuple(str(name) for name in names), part
