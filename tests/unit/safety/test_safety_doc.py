"""The document says what the code does: its plans load, and it names every key, kind and set."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from forgery_det.safety.benchmarks import benchmark_sets
from forgery_det.safety.plan import RULES, STUDIES, PromptsSpec, SafetyPlan, load_plan
from forgery_det.safety.registry import JUDGES, MODELS
from forgery_det.safety.types import PATHWAYS

REPOSITORY = Path(__file__).parents[3]
TEXT = (REPOSITORY / "docs" / "safety.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
PLANS = [block for block in BLOCKS if block.startswith("study:")]


@pytest.mark.parametrize("index", range(len(PLANS)))
def test_every_plan_loads(index: int, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLANS[index])
    plan = load_plan(tmp_path / "plan.yaml")
    assert plan.models
    assert plan.judges


def test_parts_of_plans_load(tmp_path: Path) -> None:
    parts = [block for block in BLOCKS if not block.startswith("study:")]
    rest = {
        "study": "unsafe_generation", "prompts": {"path": "p.csv"}, "models": [{"name": "s", "kind": "simulated"}],
        "judges": [{"name": "p", "kind": "planted"}],
    }  # fmt: skip
    assert parts
    for part in parts:
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(rest | yaml.safe_load(part)))
        load_plan(tmp_path / "plan.yaml")


def test_everything_is_named() -> None:
    keys = {field.name for field in dataclasses.fields(SafetyPlan)} - {"path", "combinations"}
    keys |= {field.name for field in dataclasses.fields(PromptsSpec)}
    words = keys | set(MODELS) | set(JUDGES) | set(RULES) | set(STUDIES) | set(PATHWAYS) | set(benchmark_sets())
    missing = sorted(word for word in words if f"`{word}`" not in TEXT)
    assert missing == []


def test_the_shipped_plans_are_the_examples() -> None:
    named = set(re.findall(r"configs/safety/(\w+\.yaml)", TEXT))
    assert named == {path.name for path in (REPOSITORY / "configs" / "safety").glob("*.yaml")}
