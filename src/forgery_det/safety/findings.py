"""Everything that a run found: records for `results.parquet`, and the contrasts that the report shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from forgery_det.core.types import MetricRecord
from forgery_det.metrics.agreement import Agreement
from forgery_det.metrics.misclassification import JudgeError
from forgery_det.safety.contrasts import (
    Contrast,
    Ranking,
    amplification,
    contrast_records,
    first_unsafe_hop,
    judge_agreements,
    model_contrasts,
    ranking,
)
from forgery_det.safety.detectability import detection_records
from forgery_det.safety.panel import CORRUPTION, DETECTOR
from forgery_det.safety.plan import SafetyPlan
from forgery_det.safety.rates import RATES, corrected_records, outcome_records, rate, rate_records, record
from forgery_det.safety.tables import judged


@dataclass(frozen=True, slots=True)
class Findings:
    """What a run found.

    Attributes:
        records: All numbers, for `results.parquet`.
        contrasts: Pairs of models by metric, of the pathway `generation`.
        amplified: Coupled pathways against isolated ones, by the main judge.
        order: The models ranked by two classes and by drawn images; None with fewer than two.
        agreements: First judge, second judge, how far they agree.
        corruption: Validation of the corruption detector; None where it was not used.
        items: What came back.
        judgements: What the judges said.
        main: Made items with the main judge's verdict.
    """

    records: tuple[MetricRecord, ...]
    contrasts: tuple[Contrast, ...]
    amplified: tuple[Contrast, ...]
    order: Ranking | None
    agreements: tuple[tuple[str, str, Agreement], ...]
    corruption: JudgeError | None
    items: pl.DataFrame
    judgements: pl.DataFrame
    main: pl.DataFrame


def find(
    plan: SafetyPlan, items: pl.DataFrame, judgements: pl.DataFrame, *, corruption: JudgeError | None = None
) -> Findings:
    """Compute all numbers of a run from its two tables.

    Args:
        plan: Its main judge, seed and number of replicates.
        items: `items.parquet`.
        judgements: `judgements.parquet`.
        corruption: Validation of the corruption detector.
    """
    main = judged(items, judgements, plan.main_judge)
    several = main.filter(pl.col("pathway") == "generation")["model"].n_unique() > 1
    contrasts = tuple(one for metric in RATES for one in model_contrasts(main, metric)) if several else ()
    amplified = amplification(main)
    voting = judgements.filter(~pl.col("judge").is_in([CORRUPTION, DETECTOR]))
    # Inputs are the benchmark's texts, the same at every walk; that a judge agrees with one made of it says nothing.
    answers = voting.filter(pl.col("hop") != "input")
    made_of = {(part, one.name) for one in plan.combinations for part in one.of}
    agreements = tuple(
        (first, second, one)
        for first, second, one in judge_agreements(answers, n_replicates=plan.n_replicates, seed=plan.seed)
        if not {(first, second), (second, first)} & made_of
    )
    found: list[MetricRecord] = [*outcome_records(items.filter(pl.col("hop") != "input")), *rate_records(main)]
    if corruption is not None:
        found += corrected_records(main, corruption)
    for metric in RATES:
        found += contrast_records([one for one in contrasts if one.metric == metric], f"{metric}_of_models")
    found += contrast_records(amplified, "amplification")
    found += first_unsafe_hop(main)
    found += _by_judge(items, voting)
    for first, second, one in agreements:
        where = f"judges={first} and {second}"
        found += [record("kappa", where, one.kappa), record("equal_verdicts", where, one.equal)]
    found += detection_records(main, judgements)
    order = ranking(main) if several else None
    return Findings(tuple(found), contrasts, amplified, order, agreements, corruption, items, judgements, main)


def _by_judge(items: pl.DataFrame, judgements: pl.DataFrame) -> Iterator[MetricRecord]:
    """Yield the unsafe rate at each output under each judge: changing the judge alone moves rates."""
    for judge in judgements["judge"].unique(maintain_order=True):
        output = judged(items, judgements, judge).filter((pl.col("hop") == "output") & pl.col("verdict").is_not_null())
        for (model, pathway), part in output.group_by("model", "pathway", maintain_order=True):
            yield record("unsafe_rate", f"judge={judge},model={model},pathway={pathway}", rate(part, "unsafe_rate"))
