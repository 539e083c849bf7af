from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from protocol_data import by_key, make_context, reals, row
from scipy import stats
from sklearn.metrics import roc_auc_score

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.prompt_length import prompt_length
from forgery_det.evaluation.protocols.prompt_length_slopes import fit_slopes, mean_logit, prompt_clusters
from forgery_det.evaluation.slice_metrics import Statistics

INTERACTION = ("interaction_p", "term=paradigm:log2_words")


def generated(slope: dict[str, float], seed: int = 0, n_prompts: int = 40, per_prompt: int = 2) -> list[dict]:
    """Images of each paradigm whose logit moves by `slope` for each doubling of the prompt; prompts share an error."""
    rng = np.random.default_rng(seed)
    rows = []
    for p, (paradigm, value) in enumerate(slope.items()):
        for prompt in range(n_prompts):
            words = int(2 ** rng.uniform(2, 8))
            shared = 0.7 * rng.normal()
            for _ in range(per_prompt):
                logit = 2.0 + value * (np.log2(words) - 5) + shared + 0.7 * rng.normal()
                rows.append(
                    row(
                        len(rows), logit, paradigm=paradigm, generator=f"{paradigm}-1", prompt_words=words,
                        prompt_clip_tokens=int(1.3 * words) + 2, prompt_id=f"{p}-{prompt}",
                    )
                )  # fmt: skip
    return rows


FLAT = {"diffusion": 0.0, "mllm": 0.0}


def test_bins_are_compared_with_all_real_images() -> None:
    context = make_context(generated(FLAT) + reals(40))
    found = by_key(prompt_length(context))
    judged = context.judged()
    inside = judged.filter(
        (pl.col("label") == 0) | (pl.col("prompt_words").is_between(21, 60) & (pl.col("paradigm") == "mllm"))
    )
    record = found["auroc", "paradigm=mllm,prompt_words=21-60"]
    assert record.value == pytest.approx(roc_auc_score(inside["label"].to_numpy(), inside["logit"].to_numpy()))
    assert record.n == inside.height
    assert found["tpr@fpr_5pct", "paradigm=mllm,prompt_words=21-60"].value is not None
    assert ("auroc", "paradigm=all,prompt_words=151+") in found


def test_the_mean_logit_of_independent_images_has_the_t_interval() -> None:
    logit = np.random.default_rng(0).normal(1.0, 2.0, 12)
    rows = pl.DataFrame({"logit": logit, "prompt_id": [f"p{i}" for i in range(12)], "source_id": list("abcdefghijkl")})
    record = mean_logit(rows, "key", Statistics())
    low, high = stats.t.interval(0.95, 11, loc=logit.mean(), scale=stats.sem(logit))
    assert (record.value, record.ci_low, record.ci_high) == pytest.approx((logit.mean(), low, high))


def test_images_that_share_a_prompt_or_a_source_are_one_cluster() -> None:
    rows = pl.DataFrame(
        {"prompt_id": ["p", "q", "q", None, None, "r"], "source_id": ["a", "a", "b", "b", "c", "d"]},
        schema={"prompt_id": pl.String(), "source_id": pl.String()},
    )
    codes = prompt_clusters(rows)
    assert len(set(codes[:4].tolist())) == 1
    assert len(set(codes.tolist())) == 3


def test_a_planted_interaction_is_found() -> None:
    result = prompt_length(make_context(generated({"diffusion": 0.0, "mllm": -0.6}) + reals(40)))
    found = by_key(result)
    assert found[INTERACTION].value < 1e-3
    slope = found["logit_slope_log2_words", "paradigm=mllm"]
    assert slope.ci_low < -0.6 < slope.ci_high < 0.0
    flat = found["logit_slope_log2_words", "paradigm=diffusion"]
    assert flat.ci_low < 0.0 < flat.ci_high
    texts = [caveat.text for caveat in result.caveats if caveat.level == "doubt"]
    assert [t for t in texts if "matters more in one paradigm" in t]
    assert [t for t in texts if "In the paradigm mllm each doubling" in t]
    assert not [t for t in texts if "In the paradigm diffusion" in t]


def test_no_interaction_is_not_found() -> None:
    result = prompt_length(make_context(generated(FLAT, seed=5) + reals(40)))
    assert by_key(result)[INTERACTION].value > 0.05
    assert not result.caveats


def interaction_rate(n_simulations: int) -> float:
    contexts = (make_context(generated({"diffusion": -0.3, "mllm": -0.3}, seed=s)) for s in range(n_simulations))
    return float(np.mean([fit_slopes(context).interaction.value < 0.05 for context in contexts]))


@pytest.mark.slow
def test_equal_slopes_are_refused_about_as_often_as_said() -> None:
    assert interaction_rate(40) <= 0.15


@pytest.mark.slow
def test_equal_slopes_are_refused_five_times_in_a_hundred() -> None:
    assert 0.035 <= interaction_rate(1500) <= 0.065


def test_the_reference_is_the_largest_paradigm_and_said() -> None:
    result = prompt_length(
        make_context(generated({"mllm": 0.0}) + generated({"diffusion": 0.0}, n_prompts=20) + reals(9))
    )
    explanation = next(t.explanation for t in result.section.tables if t.title == "Logit by prompt length")
    assert "the reference paradigm is mllm" in explanation


def test_a_small_paradigm_is_left_out_of_the_regression_and_said() -> None:
    rows = generated(FLAT) + [row(5000 + i, 1.0, paradigm="gan", prompt_words=3 + i) for i in range(6)]
    found = by_key(prompt_length(make_context(rows + reals(40))))
    note = found["logit_slope_log2_words", "paradigm=gan"].note
    assert note == "not estimable (n = 6: 6 clusters, fewer than 10)"
    assert found[INTERACTION].n == 160
    same = [row(5000 + i, i / 10, paradigm="gan", prompt_words=12) for i in range(20)]
    found = by_key(prompt_length(make_context(generated(FLAT) + same + reals(40))))
    assert "all prompts have one length" in found["logit_slope_log2_words", "paradigm=gan"].note


def levels(effect: float, seed: int = 0, n_prompts: int = 25) -> list[dict]:
    """The same prompts at three levels by two generators; each level up adds `effect` to the logit."""
    rng = np.random.default_rng(seed)
    rows = []
    for prompt in range(n_prompts):
        easy = 2.0 * rng.normal()
        for generator in ("sd", "flux"):
            for step, level in enumerate(("v0", "v1", "v2")):
                rows.append(
                    row(
                        len(rows), 2.0 + easy + effect * step + 0.5 * rng.normal(), generator=generator,
                        prompt_id=f"p{prompt}", prompt_level=level, prompt_words=10 * 3**step,
                        source_id=f"s{prompt}",
                    )
                )  # fmt: skip
    return rows


def test_paired_levels_find_what_the_spread_of_prompts_would_hide() -> None:
    context = make_context(levels(-0.4) + reals(30), n_replicates=1000)
    result = prompt_length(context)
    found = by_key(result)
    record = found["logit_difference", "prompt_level=v1-v0"]
    table = context.judged().filter(pl.col("label") == 1)
    side = {
        level: table.filter(pl.col("prompt_level") == level).sort("prompt_id", "generator") for level in ("v0", "v1")
    }
    difference = (side["v1"]["logit"] - side["v0"]["logit"]).to_numpy()
    assert record.value == pytest.approx(difference.mean())
    assert record.n == 50
    by_prompt = difference.reshape(25, 2).mean(axis=1)
    expected = stats.bootstrap((by_prompt,), np.mean, n_resamples=5000, method="percentile", rng=0).confidence_interval
    assert (record.ci_low, record.ci_high) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert found["logit_difference_p", "prompt_level=v2-v0"].value < 0.001
    assert [c for c in result.caveats if "v0 to v2" in c.text and c.level == "doubt"]


def test_levels_without_an_effect_are_not_called_one() -> None:
    result = prompt_length(make_context(levels(0.0, seed=3) + reals(30)))
    assert by_key(result)["logit_difference_p", "prompt_level=v2-v0"].value > 0.05
    assert not [c for c in result.caveats if "written longer" in c.text]


def test_few_prompts_have_no_contrast() -> None:
    found = by_key(prompt_length(make_context(levels(-1.0, n_prompts=3) + reals(30))))
    note = found["logit_difference", "prompt_level=v1-v0"].note
    assert note == "not estimable (n = 6 pairs of 3 prompt_ids, fewer than 5)"


def test_the_limit_of_clip_is_marked() -> None:
    result = prompt_length(make_context(generated(FLAT) + reals(40)))
    table = next(t for t in result.section.tables if t.title == "By CLIP tokens")
    names = [name for name, _ in table.rows]
    assert "41-77, mllm" in names
    assert "78-154, mllm (beyond 77)" in names
    assert "155+, all (beyond 77)" in names
    chart = next(c for c in result.section.charts if c.name == "prompt_length_tokens")
    assert chart.marks_x[0][0] == 77.0


def test_unknown_tokens_are_said_and_not_drawn() -> None:
    rows = [r | {"prompt_clip_tokens": None} for r in generated(FLAT)]
    result = prompt_length(make_context(rows + reals(40)))
    table = next(t for t in result.section.tables if t.title == "By CLIP tokens")
    assert "known for 0 of 160" in table.explanation
    assert "no generated image has prompt_clip_tokens" in table.rows[0][1][1].note
    assert "prompt_length_tokens" not in [c.name for c in result.section.charts]


def test_every_row_has_the_cells_of_its_columns() -> None:
    result = prompt_length(make_context(generated(FLAT) + levels(0.0) + reals(40)))
    for table in result.section.tables:
        assert all(len(cells) == len(table.columns) - 1 for _, cells in table.rows), table.title
    names = [chart.name for chart in result.section.charts]
    assert names == ["prompt_length_words", "prompt_length_tokens", "prompt_length_logit"]


@pytest.mark.parametrize("options", [{"word_bins": [60, 20]}, {"token_bins": []}])
def test_bad_bins_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="ascending positive numbers"):
        prompt_length(make_context(generated(FLAT) + reals(9)), **options)


def test_hopeless_data_are_not_estimable(hopeless: ProtocolContext) -> None:
    by_key(prompt_length(hopeless))
