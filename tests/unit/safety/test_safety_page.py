from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from forgery_det.metrics.misclassification import JudgeError
from forgery_det.safety.findings import Findings, find
from forgery_det.safety.page import write_report
from forgery_det.safety.plan import SafetyPlan, load_plan
from forgery_det.safety.words import summary, turned_words
from synth.safety_plan import JUDGE, MODEL, write_plan
from synth.safety_tables import PlantedRun

MODELS = [MODEL | {"name": name} for name in ("mllm", "diffusion")]


def planned(folder: Path, **changes: object) -> SafetyPlan:
    judges = [JUDGE | {"name": "human"}, JUDGE | {"name": "other"}]
    return load_plan(write_plan(folder, models=MODELS, judges=judges, **changes))


def report(plan: SafetyPlan, found: Findings, folder: Path, stopped: str = "") -> str:
    write_report(plan, found, folder, stopped)
    assert (folder / "safety.html").read_text().count("<h1") == 1
    return (folder / "safety.md").read_text().replace("\\", "")


@pytest.fixture(scope="module")
def turned() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of what diffusion draws, far more is unsafe; by two classes it looks safer, for it fails to draw 70 %."""
    run = PlantedRun(seed=1, n_prompts=60).add("mllm", {"unsafe": 0.35})
    return run.add("diffusion", {"unsafe": 0.8, "corrupted": 0.7}, refused=0.1).tables()


def test_a_wrong_ranking_is_told_where_it_is_shown(tmp_path: Path, turned) -> None:
    plan = planned(tmp_path)
    found = find(plan, *turned, corruption=JudgeError(99, 100, 98, 100))
    text = report(plan, found, tmp_path, "The budget of 3 requests is used up.")
    assert "The run is not finished. The budget of 3 requests is used up." in text
    assert "Most unsafe: diffusion" in text
    assert "two classes ranks diffusion and mllm wrongly" in text
    assert "One judge alone" in text
    assert "| corruption detector | 99 of 100 | 98 of 100 | 0.990 | 0.980 |" in text
    assert "| diffusion, generation | 220 |" in text
    assert "Hop by hop" not in text
    # Values of a key stand beside each other, with their n.
    assert "| model, pathway | en, n = " in text
    assert "| diffusion, generation, output | 240 | 0.083 [" in text


def test_an_order_that_may_be_chance_is_not_called_wrong(tmp_path: Path) -> None:
    run = PlantedRun(seed=3, n_prompts=20).add("mllm", {"unsafe": 0.30})
    found = find(planned(tmp_path), *run.add("diffusion", {"unsafe": 0.33, "corrupted": 0.4}).tables())
    assert found.order is not None
    assert found.order.turned == (("diffusion", "mllm"),)
    assert turned_words(found) == "For diffusion and mllm the two scores differ in order, which may be chance."


def test_the_headline_of_reciprocity_is_the_largest_growth(tmp_path: Path) -> None:
    run = PlantedRun(seed=2, n_prompts=80)
    run.add("mllm", {"unsafe": 0.05}).add("mllm", {"unsafe": 0.4}, pathway="understanding_generation")
    run.add("mllm", {"unsafe": 0.2}, pathway="understanding", kind="text")
    run.add("mllm", {"unsafe": 0.2}, pathway="generation_understanding", kind="text")
    run.judge_again("other", {("unsafe", "safe"): 0.9, ("safe", "unsafe"): 0.1})
    plan = planned(tmp_path, study="reciprocity")
    found = find(plan, *run.tables())
    headline, caveats = summary(plan, found)
    assert headline.startswith("mllm: ")
    assert "by understanding → generation" in headline
    assert headline.endswith("the signal grows on the way.")
    said = " ".join(caveat.text for caveat in caveats)
    assert "human and other agree little beyond chance" in said
    assert "mllm, generation → understanding: no amplification is shown" in said
    text = report(plan, found, tmp_path)
    # What the study is about comes first.
    assert text.index("## Pathways") < text.index("## Safe, unsafe, corrupted")
    assert "mllm: understanding → generation minus generation" in text
    assert "| human and other |" in text


def test_no_interval_is_trusted_on_a_handful_of_prompts(tmp_path: Path) -> None:
    found = find(planned(tmp_path), *PlantedRun(n_prompts=4).add("mllm", {"unsafe": 0.5}).tables())
    _, caveats = summary(planned(tmp_path), found)
    assert (caveats[0].level, caveats[0].text.split(":")[0]) == ("problem", "Only 4 prompts")
    bad = find(planned(tmp_path), found.items, found.judgements, corruption=JudgeError(30, 100, 60, 100))
    assert "errs much on planted failures" in " ".join(one.text for one in summary(planned(tmp_path), bad)[1])


def test_a_judge_is_not_held_against_what_is_made_of_it(tmp_path: Path) -> None:
    either = {"name": "either", "kind": "any_of", "of": ["human", "other"]}
    judges = [JUDGE | {"name": name} for name in ("human", "other", "third")]
    plan = load_plan(write_plan(tmp_path, models=MODELS, judges=[*judges, either]))
    run = PlantedRun(n_prompts=12).add("mllm", {"unsafe": 0.4})
    for name in ("other", "third", "either"):
        run.judge_again(name, {("safe", "unsafe"): 0.2})
    pairs = {(first, second) for first, second, _ in find(plan, *run.tables()).agreements}
    assert pairs == {("human", "other"), ("human", "third"), ("other", "third"), ("third", "either")}


def test_names_of_models_stay_as_they_are(tmp_path: Path) -> None:
    run = PlantedRun(n_prompts=12).add("generation_x,y", {"unsafe": 0.4}).add("understanding_2", {"unsafe": 0.4})
    plan = planned(tmp_path)
    text = report(plan, find(plan, *run.tables()), tmp_path)
    assert "| generation_x,y, generation |" in text
    assert "| understanding_2, generation, output |" in text
