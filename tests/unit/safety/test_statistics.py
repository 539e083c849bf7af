from __future__ import annotations

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.types import MetricRecord
from forgery_det.metrics.misclassification import JudgeError
from forgery_det.safety.contrasts import (
    amplification,
    contrast_records,
    first_unsafe_hop,
    judge_agreements,
    model_contrasts,
    ranking,
)
from forgery_det.safety.rates import corrected_records, outcome_records, rate, rate_records
from forgery_det.safety.tables import ITEM_SCHEMA, JUDGEMENT_SCHEMA, checked, judged
from synth.safety_tables import PlantedRun

MLLM = {"unsafe": 0.46}
DIFFUSION = {"unsafe": 0.55, "corrupted": 0.30}
"""Of what diffusion draws, more is unsafe than of the MLLM's images; but it fails to draw 30 %."""


@pytest.fixture(scope="module")
def two_models() -> tuple[pl.DataFrame, pl.DataFrame]:
    return PlantedRun(seed=8, n_prompts=400).add("mllm", MLLM).add("diffusion", DIFFUSION, refused=0.1).tables()


def found(records: list[MetricRecord], metric: str, slice_: str) -> MetricRecord:
    (one,) = [record for record in records if (record.metric, record.slice) == (metric, slice_)]
    return one


def holds(record: MetricRecord, truth: float) -> bool:
    return record.ci_low <= truth <= record.ci_high


def test_planted_rates_lie_in_their_intervals(two_models) -> None:
    records = list(rate_records(judged(*two_models, "human")))
    of_diffusion = "model=diffusion,pathway=generation,hop=output"
    assert holds(found(records, "corrupted_rate", of_diffusion), 0.30)
    assert holds(found(records, "unsafe_rate@drawn", of_diffusion), 0.55)
    assert holds(found(records, "unsafe_rate", of_diffusion), 0.385)
    assert holds(found(records, "unsafe_rate", "model=mllm,pathway=generation,hop=output"), 0.46)
    assert found(records, "corrupted_rate", "model=mllm,pathway=generation,hop=output").value == 0.0
    assert {record.slice.split(",")[-1] for record in records if "language=" in record.slice} == {
        "language=en",
        "language=zh",
    }
    # One value of a key is no slice.
    assert not any("benchmark=" in record.slice for record in records)


@pytest.mark.slow
def test_over_many_runs_the_intervals_hold_the_planted_rates() -> None:
    held: dict[str, list[bool]] = {"unsafe_rate@drawn": [], "corrupted_rate": [], "unsafe_rate": []}
    for seed in range(150):
        frame = judged(*PlantedRun(seed=seed, n_prompts=100).add("diffusion", DIFFUSION).tables(), "human")
        for metric, truth in (("unsafe_rate@drawn", 0.55), ("corrupted_rate", 0.30), ("unsafe_rate", 0.385)):
            one = rate(frame, metric)
            held[metric].append(one.ci_low <= truth <= one.ci_high)
    # 150 runs tell a coverage of 95 % to about 4 points.
    assert all(0.91 <= sum(of_metric) / 150 <= 0.99 for of_metric in held.values())


def test_refusals_are_counted_apart(two_models) -> None:
    records = list(outcome_records(two_models[0]))
    assert holds(found(records, "refused_rate", "model=diffusion,pathway=generation,hop=output"), 0.1)
    assert found(records, "blocked_rate", "model=diffusion,pathway=generation,hop=output").value == 0.0
    made = judged(*two_models, "human")
    assert len(made) < len(two_models[0])
    assert made["verdict"].null_count() == 0


def test_two_classes_rank_the_models_wrongly(two_models) -> None:
    order = ranking(judged(*two_models, "human"))
    assert order.two_class == ("mllm", "diffusion")
    assert order.drawn == ("diffusion", "mllm")
    assert order.turned == (("diffusion", "mllm"),)


def test_models_are_compared_on_the_same_prompts(two_models) -> None:
    (drawn,) = model_contrasts(judged(*two_models, "human"), "unsafe_rate@drawn")
    assert (drawn.first, drawn.second) == ("mllm", "diffusion")
    assert drawn.rates.difference.ci_low <= -0.09 <= drawn.rates.difference.ci_high
    (corrupted,) = model_contrasts(judged(*two_models, "human"), "corrupted_rate")
    assert corrupted.adjusted_p < 0.001
    names = {record.metric for record in contrast_records([drawn], "unsafe@drawn")}
    assert names == {f"unsafe@drawn_{what}" for what in ("difference", "ratio", "p", "p_holm")}


def coupled(unsafe: float, seed: int) -> pl.DataFrame:
    run = PlantedRun(seed=seed).add("unified", {"unsafe": 0.05})
    for hop, share in (("input", 0.0), ("intermediate", unsafe / 2), ("output", unsafe)):
        kind = "image" if hop == "output" else "text"
        run.add("unified", {"unsafe": share}, pathway="understanding_generation", hop=hop, kind=kind)
    return judged(*run.tables(), "human")


def test_planted_amplification_is_told_from_none() -> None:
    (grown,) = amplification(coupled(0.20, seed=1))
    assert grown.rates.difference.ci_low <= 0.15 <= grown.rates.difference.ci_high
    assert grown.rates.ratio.ci_low <= 4.0 <= grown.rates.ratio.ci_high
    assert grown.adjusted_p < 0.001
    (same,) = amplification(coupled(0.05, seed=2))
    assert same.rates.difference.ci_low <= 0.0 <= same.rates.difference.ci_high
    assert same.adjusted_p > 0.05


def test_where_the_signal_first_appears() -> None:
    records = list(first_unsafe_hop(coupled(0.20, seed=3)))
    share = {record.slice.split("hop=")[1]: record.value for record in records}
    assert share["input"] == 0.0
    # Planted independently of the output: some of the unsafe outputs had an unsafe intermediate text.
    assert 0.0 < share["intermediate"] < 0.4
    assert sum(share.values()) == pytest.approx(1.0)


def test_a_biased_judge_moves_the_rate_and_kappa_says_so() -> None:
    run = PlantedRun(seed=9).add("mllm", MLLM)
    run.judge_again("strict", {("safe", "unsafe"): 0.4}).judge_again("twin", {})
    items, judgements = run.tables()
    strict, human = (rate(judged(items, judgements, name), "unsafe_rate").value for name in ("strict", "human"))
    assert strict - human == pytest.approx(0.216, abs=0.05)
    kappa = {(a, b): one.kappa.value for a, b, one in judge_agreements(judgements, n_replicates=200)}
    assert kappa["human", "twin"] == 1.0
    assert kappa["human", "strict"] < 0.7


def test_the_error_of_the_corruption_detector_is_taken_out() -> None:
    run = PlantedRun(seed=4).add("diffusion", DIFFUSION)
    # It finds 80 % of the corrupted images and calls 10 % of the others corrupted.
    run.judge_again("detector", {("corrupted", "safe"): 0.2, ("safe", "corrupted"): 0.1, ("unsafe", "corrupted"): 0.1})
    seen = judged(*run.tables(), "detector")
    (record,) = corrected_records(seen, JudgeError(hits=80, n_positive=100, passes=90, n_negative=100))
    assert holds(record, 0.30)
    assert rate(seen, "corrupted_rate").value == pytest.approx(0.31, abs=0.05)


def test_what_could_not_be_judged_is_named() -> None:
    items, judgements = PlantedRun(n_prompts=10).add("mllm", MLLM).tables()
    blind = judgements.with_columns(
        pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise(pl.col("verdict")).alias("verdict")
    )
    assert rate(judged(items, blind, "human"), "unsafe_rate").note == "3 of 40 could not be judged"


def test_bad_tables_are_refused() -> None:
    items, judgements = PlantedRun(n_prompts=2).add("mllm", MLLM).tables()
    with pytest.raises(ConfigError, match="Expected a judge with judgements, got 'nobody'; there are: human"):
        judged(items, judgements, "nobody")
    with pytest.raises(ConfigError, match=r"Expected one row for each prompt_id, .* in items, got several"):
        checked(pl.concat([items, items]), ITEM_SCHEMA, "items")
    with pytest.raises(ConfigError, match="Expected column `verdict` of type String in judgements, got no such column"):
        checked(judgements.drop("verdict"), JUDGEMENT_SCHEMA, "judgements")
    with pytest.raises(ConfigError, match="Expected `verdict` in safe, unsafe, corrupted, got 'bad'"):
        checked(judgements.with_columns(verdict=pl.lit("bad")), JUDGEMENT_SCHEMA, "judgements")
