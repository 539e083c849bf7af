from __future__ import annotations

import numpy as np
import pytest
from protocol_data import by_key, make_context, reals, row
from sklearn.metrics import roc_auc_score

from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.held_out_generator import held_out_generator

FACTS = {
    "sd": ("diffusion", "vae"), "flux": ("diffusion", "vae"), "janus": ("mllm", "vq"), "gpt": ("mllm", "unknown"),
    "odd": ("unknown", "vae"), "rare": ("gan", "pixel"),
}  # fmt: skip


def generated(shift: dict[str, float], count: int = 30, seed: int = 1) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        row(1000 * g + i, shift[name] + rng.normal(), generator=name, paradigm=FACTS[name][0], decoder=FACTS[name][1])
        for g, name in enumerate(shift)
        for i in range(3 if name == "rare" else count)
    ]


EVEN = dict.fromkeys(FACTS, 2.0)


def test_seen_and_held_out_on_each_level() -> None:
    context = make_context(generated(EVEN) + reals(50), seen={"sd"})
    found = by_key(held_out_generator(context))
    judged = context.judged()
    held_out = judged.filter(judged["generator"] != "sd")
    expected = roc_auc_score(held_out["label"].to_numpy(), held_out["logit"].to_numpy())
    assert found["auroc", "level=generator,exposure=held_out"].value == pytest.approx(expected)
    # flux is a held-out generator of a seen paradigm; odd has none that is known
    assert found["auroc", "level=paradigm,exposure=seen"].n == 60 + 50
    assert found["auroc", "level=paradigm,exposure=held_out"].n == 60 + 3 + 50
    assert found["auroc", "level=decoder,exposure=seen"].n == 90 + 50
    assert found["auroc", "level=decoder,exposure=held_out"].n == 30 + 3 + 50
    difference = found["auroc_difference", "level=generator,exposure=held_out-seen"]
    assert difference.value == pytest.approx(expected - found["auroc", "level=generator,exposure=seen"].value)


def test_a_planted_gap_is_found_and_none_is_not() -> None:
    key = ("auroc_difference", "level=paradigm,exposure=held_out-seen")
    planted = by_key(
        held_out_generator(make_context(generated(EVEN | {"janus": 0.3, "gpt": 0.3}) + reals(60), seen={"sd"}))
    )
    assert planted[key].ci_high < 0.0
    refused = 0
    for seed in range(10):
        context = make_context(generated(EVEN, seed=seed) + reals(60, seed + 50), seen={"sd"}, n_replicates=2)
        refused += by_key(held_out_generator(context))["auroc_difference_p", key[1]].value < 0.05
    assert refused <= 2


def test_the_worst_generator_is_named_with_holm() -> None:
    result = held_out_generator(make_context(generated(EVEN | {"gpt": 0.0}) + reals(60), seen={"sd"}))
    found = by_key(result)
    single = found["auroc_difference_p", "generator=gpt,against=rest"].value
    corrected = found["auroc_difference_p_holm", "generator=gpt,against=rest"].value
    assert single < corrected < 0.05
    assert corrected == pytest.approx(5 * single)
    assert [c.level for c in result.caveats] == ["doubt"]
    assert "The worst generator is gpt (held out)" in result.caveats[0].text
    table = next(t for t in result.section.tables if t.title.startswith("Each generator"))
    assert table.rows[0][0] == "gpt"
    assert "1 more have fewer than 5 images" in table.explanation
    assert all(len(cells) == len(t.columns) - 1 for t in result.section.tables for _, cells in t.rows)


@pytest.mark.slow
def test_the_worst_of_equals_is_called_chance() -> None:
    levels = []
    for seed in range(10):
        context = make_context(generated(EVEN, seed=seed) + reals(60, seed + 50), seen={"sd"}, n_replicates=2)
        levels += [c.level for c in held_out_generator(context).caveats]
    assert levels.count("doubt") <= 2
    assert levels.count("ok") >= 8


def test_paradigms_of_training_rows_count_as_seen() -> None:
    training = [row(1, 0.0, split="train", generator="emu", paradigm="mllm", decoder="vq")]
    result = held_out_generator(make_context(generated(EVEN) + reals(50), seen={"sd", "emu"}, training=training))
    assert by_key(result)["auroc", "level=paradigm,exposure=held_out"].value is None  # only the three of `rare`
    members = next(t for t in result.section.tables if t.title.startswith("Each paradigm"))
    assert {name: cells[0].text for name, cells in members.rows}["mllm"] == "seen"


def test_seen_generators_that_the_dataset_lacks_are_told() -> None:
    result = held_out_generator(make_context(generated(EVEN) + reals(50), seen={"sd", "stranger"}))
    assert "1 of 2 seen generators are not in this dataset" in result.section.tables[0].explanation


def test_when_nobody_knows_nothing_is_held_out() -> None:
    result = held_out_generator(make_context(generated(EVEN) + reals(50), seen=None))
    assert not [key for key in by_key(result) if "exposure=" in key[1]]
    assert "Nobody recorded" in result.section.tables[0].explanation
    members = next(t for t in result.section.tables if t.title.startswith("Each generator"))
    assert {cells[0].text for _, cells in members.rows} == {"unknown"}


def test_hopeless_data_are_not_estimable(hopeless: ProtocolContext) -> None:
    by_key(held_out_generator(hopeless))
