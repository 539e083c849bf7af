"""The summary in plain words: what the main number is, and every reason to doubt it.

The main number is the AUROC on generators that training never saw, because that is what meets a detector in use; where
the split has none, that is itself the first caveat. Each rule below is one function: values in, at most a few caveats
out. The limits are named constants; they decide words, never numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.slices import HELD_OUT, OVERALL, SEEN
from forgery_det.reporting.data import AuditRow, Bar, Caveat, Level, Verdict

GOOD_AUROC = 0.9
"""Lower end of the interval from which the headline raises no objection."""
WIDE_INTERVAL = 0.1
EXPOSURE_GAP = 0.05
SHORTCUT_DOUBT = 0.7
SHORTCUT_NEAR = 0.1
"""A shortcut whose AUROC is within this of the detector's may be all that the detector learnt."""
FPR_FACTOR = 2.0
"""An FPR above this many times the wanted one is doubted even where its interval still holds the wanted one."""

SHORTCUTS: Mapping[str, tuple[str, str]] = {
    "thumbnail_content": ("thumbnail only", "a classifier on a tiny thumbnail: what the picture shows, no fine detail"),
    "file_facts": ("file facts only", "a classifier on size, codec and quality, without any pixel"),
    "origin_facts": ("facts of the original files", "a classifier on size and codec before the files were aligned"),
}
"""Audit findings that are AUROCs of shortcuts -> short name and what it looks at."""

_ORDER: Mapping[Level, int] = {"problem": 0, "doubt": 1, "ok": 2}


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules look at.

    Args:
        records: All results.
        split: The judged split.
        exposure_known: Whether anybody knows which generators were seen in training.
        audit: Findings, None without an audit.
        n_bad: Files that could not be scored.
        n_scored: Files that were scored.
        calibrated: Whether the checkpoint holds a temperature.
        prompt_words_known: Generated images with a known prompt, and all generated images.
        protocols: What the protocols warn of.
    """

    records: Sequence[MetricRecord]
    split: str
    exposure_known: bool
    audit: Sequence[AuditRow] | None
    n_bad: int
    n_scored: int
    calibrated: bool
    prompt_words_known: tuple[int, int]
    protocols: tuple[Caveat, ...] = ()

    def get(self, metric: str, key: str) -> MetricRecord | None:
        """Return a record that has a value."""
        found = (r for r in self.records if r.metric == metric and r.slice == key and r.value is not None)
        return next(found, None)

    def main(self) -> tuple[str, MetricRecord] | None:
        """Return what the main number is about, and the number."""
        for key, words in ((HELD_OUT, "On generators it never saw"), (OVERALL, "Over all generators"), (SEEN, "")):
            record = self.get("auroc", key)
            if record is not None:
                return words or "On generators seen in training", record
        return None


def make_verdict(evidence: Evidence) -> Verdict:
    """Return headline and caveats, the most serious first."""
    caveats = sorted((c for rule in _RULES for c in rule(evidence)), key=lambda caveat: _ORDER[caveat.level])
    level: Level = min((caveat.level for caveat in caveats), key=_ORDER.__getitem__, default="ok")
    return Verdict(level, _headline(evidence), tuple(caveats))


def comparison_bars(evidence: Evidence) -> tuple[Bar, ...]:
    """Return the detector's AUROC beside the AUROCs of the shortcuts that the audit tried."""
    bars = []
    named = ((HELD_OUT, "detector, held out"), (SEEN, "detector, seen"), (OVERALL, "detector, all"))
    for key, name in named:
        record = next((r for r in evidence.records if (r.metric, r.slice) == ("auroc", key)), None)
        if record is not None and (record.value is not None or key == OVERALL):
            bars.append(Bar(name, "detector", record.value, record.ci_low, record.ci_high, record.n))
    for row in _shortcuts(evidence):
        name, explanation = SHORTCUTS[row.name]
        where = "the whole dataset" if row.slice == OVERALL else row.slice.replace("=", " ")
        explanation = f"{explanation}; cross-validated, {where}"
        bars.append(Bar(name, "shortcut", row.value, row.ci_low, row.ci_high, row.n or 0, explanation))
    return tuple(bars)


def _headline(evidence: Evidence) -> str:
    main = evidence.main()
    if main is None:
        return "There is no AUROC: the evaluated split has too few real or generated images."
    words, record = main
    return (
        f"{words}, a generated image gets a higher logit than a real one {record.value:.1%} of the time "
        f"(AUROC {record.value:.3f}{_interval(record)}, n = {record.n})."
    )


def _interval(item: MetricRecord | AuditRow) -> str:
    if item.ci_low is None or item.ci_high is None:
        return ""
    return f", 95 % interval {item.ci_low:.3f} to {item.ci_high:.3f}"


def _strength(evidence: Evidence) -> Iterator[Caveat]:
    main = evidence.main()
    if main is None:
        yield Caveat("problem", "Without an AUROC nothing can be said about this detector.")
        return
    low, high = main[1].ci_low, main[1].ci_high
    if low is None or high is None:
        yield Caveat("doubt", "The main number has no interval, so its accuracy is unknown.")
        return
    if low <= 0.5:
        yield Caveat("problem", "The interval reaches 0.5: these images cannot tell the detector from guessing.")
    elif low < GOOD_AUROC:
        yield Caveat("doubt", f"The true AUROC may be as low as {low:.2f}.")
    if high - low > WIDE_INTERVAL:
        yield Caveat(
            "doubt",
            f"The interval is {high - low:.2f} wide: "
            "detectors that differ by less cannot be ranked with this many images.",
        )


def _exposure(evidence: Evidence) -> Iterator[Caveat]:
    held_out, seen = evidence.get("auroc", HELD_OUT), evidence.get("auroc", SEEN)
    if not evidence.exposure_known:
        yield Caveat("doubt", "Nobody recorded which generators were seen in training, so none can be called held out.")
    elif held_out is None:
        yield Caveat(
            "problem", "No held-out generator could be judged: the numbers say nothing about generators it never saw."
        )
    elif seen is not None and held_out.value is not None and seen.value is not None:
        gap = seen.value - held_out.value
        text = f"On generators seen in training the AUROC is {seen.value:.3f}{_interval(seen)}, n = {seen.n}: "
        if gap > EXPOSURE_GAP:
            yield Caveat("doubt", f"{text}a new generator costs about {gap:.2f}.")
        else:
            yield Caveat("ok", f"{text}held-out generators are about as easy.")


def _shortcuts(evidence: Evidence) -> list[AuditRow]:
    """Return one finding of each shortcut that has a value: on the judged split if there is one, else overall."""
    found = []
    for name in SHORTCUTS:
        by_slice = {row.slice: row for row in evidence.audit or () if row.name == name and row.value is not None}
        row = by_slice.get(f"split={evidence.split}") or by_slice.get(OVERALL)
        if row is not None:
            found.append(row)
    return found


def _subject_matter(evidence: Evidence) -> Iterator[Caveat]:
    if evidence.audit is None:
        yield Caveat(
            "doubt",
            "No audit was given: nobody checked whether the dataset can be solved without looking at the content.",
        )
        return
    if not any(row.name == "thumbnail_content" for row in _shortcuts(evidence)):
        yield Caveat("doubt", "The audit has no thumbnail test: how much is subject matter is unknown.")
    main = evidence.main()
    for row in _shortcuts(evidence):
        name, what = SHORTCUTS[row.name]
        value = row.value or 0.0
        text = f"{name.capitalize()}: AUROC {value:.3f}{_interval(row)} ({what})."
        if (
            main is not None
            and main[1].value is not None
            and value > main[1].value - SHORTCUT_NEAR
            and value > SHORTCUT_DOUBT
        ):
            yield Caveat(
                "problem",
                f"{text} That is close to the detector's own {main[1].value:.3f}: it may have learnt only that.",
            )
        elif value > SHORTCUT_DOUBT:
            yield Caveat(
                "doubt", f"{text} Part of the detector's AUROC may be that, and would be lost on other pictures."
            )
        else:
            yield Caveat("ok", f"{text} This shortcut explains little.")


def _other_findings(evidence: Evidence) -> Iterator[Caveat]:
    for row in evidence.audit or ():
        # Shortcuts have their own rule; their slices would only say the same again.
        if row.level not in ("fail", "warn") or row.name in SHORTCUTS:
            continue
        where = "" if row.slice == OVERALL else f" ({row.slice})"
        waived = f" Waived: {row.waived}" if row.waived else ""
        level: Level = "problem" if row.level == "fail" and not row.waived else "doubt"
        yield Caveat(level, f"Audit {row.name}{where}: {row.detail}{waived}")


def _decisions(evidence: Evidence) -> Iterator[Caveat]:
    for point, wanted in (("fpr_1pct", 0.01), ("fpr_5pct", 0.05)):
        caught, alarms = evidence.get(f"tpr@{point}", HELD_OUT), evidence.get(f"fpr@{point}", OVERALL)
        caught = caught or evidence.get(f"tpr@{point}", OVERALL)
        if caught is None or alarms is None or caught.value is None or alarms.value is None:
            continue
        text = (
            f"At the threshold for {wanted:.0%} false alarms on val it catches {caught.value:.0%} (n = {caught.n}) "
            f"and calls {alarms.value:.1%} of the real test images generated (n = {alarms.n}"
            + (f", interval {alarms.ci_low:.1%} to {alarms.ci_high:.1%})." if alarms.ci_low is not None else ").")
        )
        if alarms.ci_low is not None and alarms.ci_low > wanted:
            yield Caveat("doubt", f"{text} The threshold does not keep its promise here.")
        elif alarms.value > FPR_FACTOR * wanted:
            yield Caveat("doubt", f"{text} Whether the threshold keeps its promise cannot be told from so few images.")
        else:
            yield Caveat("ok", text)


def _completeness(evidence: Evidence) -> Iterator[Caveat]:
    if evidence.split != "test":
        yield Caveat("problem", f"These are images of the split {evidence.split}, which training has used.")
    if not any(r.metric.startswith("threshold@") and r.value is not None for r in evidence.records):
        yield Caveat("doubt", "There is no threshold from val, so nothing is said about decisions, only about ranking.")
    if not evidence.calibrated:
        yield Caveat("doubt", "The checkpoint is not calibrated: a score of 0.9 is not a probability of 90 %.")
    if evidence.n_bad:
        total = evidence.n_bad + evidence.n_scored
        yield Caveat("doubt", f"{evidence.n_bad} of {total} files could not be scored; they are listed below.")
    known, generated = evidence.prompt_words_known
    if generated and known < generated:
        yield Caveat(
            "ok", f"The prompt is known for {known} of {generated} generated images; prompt-length bins use those."
        )


def _protocols(evidence: Evidence) -> Iterator[Caveat]:
    yield from evidence.protocols


_RULES: tuple[Callable[[Evidence], Iterator[Caveat]], ...] = (
    _subject_matter,
    _strength,
    _exposure,
    _decisions,
    _protocols,
    _other_findings,
    _completeness,
)
