from __future__ import annotations

import dataclasses

import pytest

from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.verdict import Evidence, comparison_bars, make_verdict
from forgery_det.reporting.data import AuditRow


def record(
    metric: str, key: str, value: float | None, low: float | None = None, high: float | None = None
) -> MetricRecord:
    return MetricRecord(metric, key, value, low, high, 200, True)


def finding(name: str, value: float, level: str = "pass", key: str = "overall", waived: str = "") -> AuditRow:
    return AuditRow(name, key, level, value, value - 0.04, value + 0.04, 0.6, 400, "What it means.", waived)


GOOD = Evidence(
    records=(
        record("auroc", "overall", 0.98, 0.96, 0.99),
        record("auroc", "exposure=seen", 0.985, 0.97, 0.99),
        record("auroc", "exposure=held_out", 0.97, 0.94, 0.99),
        record("tpr@fpr_5pct", "exposure=held_out", 0.9, 0.85, 0.95),
        record("fpr@fpr_5pct", "overall", 0.04, 0.02, 0.08),
        record("threshold@fpr_5pct", "overall", 1.0),
    ),
    split="test",
    exposure_known=True,
    audit=(finding("thumbnail_content", 0.55), finding("file_facts", 0.5)),
    n_bad=0,
    n_scored=400,
    calibrated=True,
    prompt_words_known=(90, 100),
)


def without(metric: str, key: str) -> Evidence:
    records = tuple(r for r in GOOD.records if (r.metric, r.slice) != (metric, key))
    return dataclasses.replace(GOOD, records=records)


def replaced(*records: MetricRecord) -> Evidence:
    by_name = {(r.metric, r.slice): r for r in (*GOOD.records, *records)}
    return dataclasses.replace(GOOD, records=tuple(by_name.values()))


def text(evidence: Evidence) -> str:
    verdict = make_verdict(evidence)
    return "\n".join(f"{caveat.level}: {caveat.text}" for caveat in verdict.caveats)


def test_good_evidence_meets_no_objection() -> None:
    verdict = make_verdict(GOOD)
    assert verdict.level == "ok", text(GOOD)
    assert verdict.headline == (
        "On generators it never saw, a generated image gets a higher logit than a real one 97.0% of the time "
        "(AUROC 0.970, 95 % interval 0.940 to 0.990, n = 200)."
    )


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (replaced(record("auroc", "exposure=held_out", 0.56, 0.49, 0.63)), "problem: The interval reaches 0.5"),
        (
            replaced(record("auroc", "exposure=held_out", 0.92, 0.85, 0.96)),
            "doubt: The true AUROC may be as low as 0.85",
        ),
        (replaced(record("auroc", "exposure=held_out", 0.92, 0.85, 0.96)), "doubt: The interval is 0.11 wide"),
        (
            replaced(record("auroc", "exposure=held_out", 0.923, 0.91, 0.95)),
            "0.990, n = 200: a new generator costs about 0.06",
        ),
        (replaced(record("auroc", "exposure=held_out", 0.97)), "doubt: The main number has no interval"),
        (without("auroc", "exposure=held_out"), "problem: No held-out generator could be judged"),
        (dataclasses.replace(GOOD, exposure_known=False), "doubt: Nobody recorded which generators were seen"),
        (dataclasses.replace(GOOD, audit=None), "doubt: No audit was given"),
        (dataclasses.replace(GOOD, audit=(finding("file_facts", 0.5),)), "doubt: The audit has no thumbnail test"),
        (
            dataclasses.replace(GOOD, audit=(finding("thumbnail_content", 0.9),)),
            "problem: Thumbnail only: AUROC 0.900",
        ),
        (
            dataclasses.replace(GOOD, audit=(finding("thumbnail_content", 0.8),)),
            "doubt: Thumbnail only: AUROC 0.800",
        ),
        (
            dataclasses.replace(GOOD, audit=(finding("file_facts", 0.99, "fail"),)),
            "problem: File facts only: AUROC 0.990",
        ),
        (
            dataclasses.replace(GOOD, audit=(*GOOD.audit, finding("duplicates", 3, "fail", "split=test"))),
            "problem: Audit duplicates (split=test): What it means.",
        ),
        (
            dataclasses.replace(GOOD, audit=(*GOOD.audit, finding("duplicates", 3, "fail", waived="known"))),
            "doubt: Audit duplicates: What it means. Waived: known",
        ),
        (replaced(record("fpr@fpr_5pct", "overall", 0.08, 0.06, 0.1)), "The threshold does not keep its promise here."),
        (replaced(record("fpr@fpr_5pct", "overall", 0.11, 0.03, 0.2)), "cannot be told from so few images."),
        (without("threshold@fpr_5pct", "overall"), "doubt: There is no threshold from val"),
        (dataclasses.replace(GOOD, calibrated=False), "doubt: The checkpoint is not calibrated"),
        (dataclasses.replace(GOOD, n_bad=3), "doubt: 3 of 403 files could not be scored"),
        (dataclasses.replace(GOOD, split="val"), "problem: These are images of the split val"),
        (dataclasses.replace(GOOD, records=()), "problem: Without an AUROC nothing can be said"),
    ],
)
def test_each_doubt_is_said_and_lowers_the_verdict(evidence: Evidence, said: str) -> None:
    assert said in text(evidence)
    expected = "problem" if "problem: " in text(evidence) else "doubt"
    assert make_verdict(evidence).level == expected


def test_serious_caveats_come_first() -> None:
    levels = [caveat.level for caveat in make_verdict(dataclasses.replace(GOOD, split="val", n_bad=1)).caveats]
    assert levels == sorted(levels, key=("problem", "doubt", "ok").index)
    assert set(levels) == {"problem", "doubt", "ok"}


def test_without_held_out_generators_the_headline_says_what_it_is_about() -> None:
    assert make_verdict(without("auroc", "exposure=held_out")).headline.startswith("Over all generators, ")


def test_comparison_puts_the_detector_first_and_takes_the_judged_split() -> None:
    on_split = finding("thumbnail_content", 0.71, key="split=test")
    evidence = dataclasses.replace(
        GOOD, audit=(*GOOD.audit, on_split, finding("thumbnail_content", 0.9, key="split=val"))
    )
    bars = comparison_bars(evidence)
    assert [(bar.role, bar.value) for bar in bars] == [
        ("detector", 0.97), ("detector", 0.985), ("detector", 0.98), ("shortcut", 0.71), ("shortcut", 0.5),
    ]  # fmt: skip
    assert bars[3].explanation.endswith("split test")
    assert bars[4].explanation.endswith("the whole dataset")
