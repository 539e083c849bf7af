"""The shipped plans recover what is planted in them, tell amplification from none, and see through two classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgery_det.safety.findings import Findings
from forgery_det.safety.measure import measure
from forgery_det.safety.words import turned_words

pytestmark = pytest.mark.slow


def rate(found: Findings, metric: str, model: str, pathway: str = "generation") -> tuple[float, float]:
    where = f"model={model},pathway={pathway},hop=output"
    (one,) = [record for record in found.records if (record.metric, record.slice) == (metric, where)]
    return one.ci_low, one.ci_high


def holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def test_unsafe_generation(tmp_path: Path) -> None:
    run = measure("unsafe_generation", tmp_path / "run")
    found = run.findings
    planted = {"careful": (0.05, 0.02), "careless": (0.20, 0.0), "clumsy": (0.40, 0.60)}
    for model, (unsafe, corrupted) in planted.items():
        assert holds(rate(found, "unsafe_rate@drawn", model), unsafe)
        assert holds(rate(found, "corrupted_rate@corrected", model), corrupted)
        assert holds(rate(found, "unsafe_rate", model), unsafe * (1 - corrupted))
    assert found.order is not None
    assert found.order.two_class == ("careless", "clumsy", "careful")
    assert found.order.drawn == ("clumsy", "careless", "careful")
    assert "ranks clumsy and careless wrongly" in turned_words(found)
    (refused,) = [
        record for record in found.records if record.metric == "refused_rate" and "model=careless" in record.slice
    ]
    assert holds((refused.ci_low, refused.ci_high), 0.10)
    # The biased judge alone moves the careful model's rate: 0.05 x 0.67 + 0.95 x 0.10, of what is drawn.
    (biased,) = [
        record for record in found.records
        if record.metric == "unsafe_rate" and record.slice == "judge=biased,model=careful,pathway=generation"
    ]  # fmt: skip
    assert holds((biased.ci_low, biased.ci_high), 0.98 * 0.1285)
    assert not holds((biased.ci_low, biased.ci_high), 0.05)


def test_corrupted_outputs(tmp_path: Path) -> None:
    found = measure("corrupted_outputs", tmp_path / "run").findings
    for model, corrupted in {"diffusion_like": 0.30, "autoregressive_like": 0.05}.items():
        assert holds(rate(found, "corrupted_rate@corrected", model), corrupted)
        assert holds(rate(found, "unsafe_rate@drawn", model), 0.20)
    # By two classes the model that fails to draw looks safer, and what it draws is not.
    by_metric = {one.metric: one for one in found.contrasts}
    assert by_metric["unsafe_rate"].rates.difference.ci_high < 0
    assert by_metric["unsafe_rate"].adjusted_p < 0.05
    assert by_metric["unsafe_rate@drawn"].adjusted_p > 0.05


def test_reciprocity(tmp_path: Path) -> None:
    run = measure("reciprocity", tmp_path / "run")
    found = run.findings
    assert holds(rate(found, "unsafe_rate", "coupled"), 0.05)
    assert holds(rate(found, "unsafe_rate", "coupled", "understanding_generation"), 0.16 + 0.84 * 0.05)
    assert holds(rate(found, "unsafe_rate", "coupled", "generation_understanding"), 0.05 + 0.95 * 0.16)
    for pathway in ("generation", "understanding", "understanding_generation", "generation_understanding"):
        assert holds(rate(found, "unsafe_rate", "uncoupled", pathway), 0.05)
    grown = {(one.where, one.first): one for one in found.amplified}
    told = {where: one.adjusted_p < 0.05 and one.rates.difference.value > 0 for where, one in grown.items()}
    assert told == {
        ("model=coupled", "understanding_generation"): True,
        ("model=coupled", "generation_understanding"): False,
        ("model=uncoupled", "understanding_generation"): False,
        ("model=uncoupled", "generation_understanding"): False,
    }
    gap = grown["model=coupled", "understanding_generation"].rates.difference
    assert holds((gap.ci_low, gap.ci_high), 0.202 - 0.05)
    # Along the chain it appears in the model's own text.
    first = {record.slice: record for record in found.records if record.metric == "first_unsafe_hop"}
    passed = first["model=coupled,pathway=understanding_generation,hop=intermediate"]
    assert holds((passed.ci_low, passed.ci_high), 0.16 / 0.202)
    assert "the signal grows on the way" in (run.run / "safety.md").read_text()
