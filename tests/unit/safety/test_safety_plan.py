from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.safety.plan import load_plan
from forgery_det.safety.registry import JUDGES, MODELS
from synth.safety_plan import JUDGE, MODEL, write_plan

BOTH = [JUDGE, JUDGE | {"name": "biased", "misses": 0.5}]


def test_a_plan_is_read_with_its_defaults(tmp_path: Path) -> None:
    plan = load_plan(write_plan(tmp_path, walks_per_prompt=None, corruption=None, n_replicates=None))
    assert (plan.study, plan.walks_per_prompt, plan.store, plan.main_judge) == (
        "unsafe_generation",
        4,
        "none",
        "planted",
    )
    assert plan.pathways == ("generation",)
    assert plan.models[0].parameters.unsafe_image == 0.3
    assert (plan.models[0].name, plan.models[0].paradigm) == ("toy", "mllm")
    assert plan.corruption.use
    assert plan.corruption.validation is None
    assert (plan.budget.requests, plan.budget.usd, plan.n_replicates, plan.seed) == (None, None, 1000, 0)
    assert plan.folder == tmp_path
    assert plan.prompts[0].path == "prompts.csv"


def test_judges_are_combined_in_order(tmp_path: Path) -> None:
    either = {"name": "either", "kind": "any_of", "of": ["planted", "biased"]}
    plan = load_plan(write_plan(tmp_path, judges=[*BOTH, either], main_judge="either"))
    assert [judge.name for judge in plan.judges] == ["planted", "biased"]
    (combination,) = plan.combinations
    assert (combination.rule, combination.of, plan.main_judge) == ("any_of", ("planted", "biased"), "either")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": "unsafe"}, "Unknown study 'unsafe'.*Known: .*unsafe_generation"),
        ({"study": None}, "the key 'study', got none"),
        ({"walks": 3}, "Unknown key 'walks'.*walks_per_prompt"),
        ({"walks_per_prompt": 0}, "`walks_per_prompt` of at least 1 .*got 0"),
        ({"n_replicates": 1}, "`n_replicates` of at least 2.* and 1"),
        ({"walks_per_prompt": "four"}, "an integer, got 'four'"),
        ({"pathways": ["drawing"]}, "Unknown pathways 'drawing'"),
        ({"store": "plain"}, "Unknown store 'plain'"),
        ({"main_judge": "plante"}, "Unknown main_judge 'plante'.*did you mean 'planted'"),
        ({"budget": {"euro": 3}}, "'euro'.*budget"),
        ({"corruption": {"validate": "x"}}, "'validate'.*did you mean 'validation'"),
        ({"instructions": {"tell": "x"}}, "'tell'.*instructions"),
        ({"prompts": [{"file": "x.csv"}]}, r"'file'.*prompts\[0\]"),
        ({"models": [MODEL, MODEL]}, "each model to have a name of its own, got 'toy' twice"),
        ({"models": [{"kind": "simulated"}]}, r"texts `name` and `kind`.*models\[0\]"),
        ({"models": "toy"}, r"a mapping with the texts .*got 'toy'"),
        ({"models": [MODEL | {"kind": "simulate"}]}, "did you mean 'simulated'"),
        ({"models": [MODEL | {"paradigm": "gans"}]}, "Unknown paradigm 'gans'"),
        ({"models": [MODEL | {"unsafe": 0.5}]}, "'unsafe'.*did you mean 'unsafe_"),
        ({"models": [MODEL | {"corrupted": 1.5}]}, r"`corrupted` in \[0, 1\], got 1.5.*models\[0\]"),
        ({"judges": []}, "at least one judge"),
        ({"judges": [JUDGE, JUDGE]}, "each judge to have a name of its own"),
        ({"judges": [JUDGE | {"kind": "nudnet"}]}, "did you mean 'nudenet'"),
        ({"judges": [JUDGE | {"misses": -0.1}]}, r"`misses` in \[0, 1\]"),
        ({"judges": [*BOTH, {"name": "b", "kind": "all_of", "of": ["planted"]}]}, "at least 2 judges in `of`, got 1"),
        ({"judges": [{"name": "b", "kind": "all_of", "of": ["planted", "biased"]}, *BOTH]}, "Unknown judge in `of`"),
        ({"judges": [*BOTH, {"name": "b", "kind": "majority", "of": ["planted", "biasd"]}]}, "did you mean 'biased'"),
        ({"judges": [*BOTH, {"name": "b", "kind": "majority", "off": ["planted"]}]}, "'off'"),
        ({"judges": [*BOTH, {"name": "planted", "kind": "any_of", "of": ["planted", "biased"]}]}, "'planted' twice"),
    ],
)  # fmt: skip
def test_each_mistake_is_told_with_its_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=said) as caught:
        load_plan(write_plan(tmp_path, **changes))
    if isinstance(caught.value, ConfigError):
        assert "plan.yaml" in str(caught.value)


def test_files_that_are_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="readable YAML"):
        load_plan(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text(json.dumps([1]))
    with pytest.raises(ConfigError, match="a mapping"):
        load_plan(tmp_path / "list.yaml")


def test_shipped_plans_are_found_by_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = load_plan("configs/safety/reciprocity.yaml")
    assert plan.study == "reciprocity"
    assert (plan.folder / plan.prompts[0].path).is_file()
    for name in ("unsafe_generation", "corrupted_outputs", "reciprocity"):
        assert load_plan(name).study == name
    # A file of one's own comes first.
    assert load_plan(write_plan(tmp_path / "configs" / "safety")).folder == tmp_path / "configs" / "safety"
    with pytest.raises(ConfigError, match="readable YAML"):
        load_plan("somewhere/reciprocity.yaml")


@pytest.mark.parametrize("registry", [MODELS, JUDGES], ids=["models", "judges"])
def test_every_registered_kind_has_parameters(registry: Any) -> None:
    for name in registry.names():
        assert hasattr(registry.get(name), "Parameters")
