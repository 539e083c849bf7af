"""`docs/recipes.md` says what the code does: its examples are read, and its tables name what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from forgery_det.recipes.load import load_recipe
from forgery_det.recipes.prompting.language import LANGUAGES
from forgery_det.recipes.prompting.registry import PROMPT_KINDS, TEXT_MODELS
from forgery_det.recipes.prompting.schema import parse_prompt_sets
from forgery_det.recipes.sources.registry import SOURCES

DOC = Path(__file__).parents[3] / "docs" / "recipes.md"
TEXT = DOC.read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


def test_the_first_recipe_can_be_loaded(tmp_path: Path) -> None:
    (whole,) = [example for example in EXAMPLES if "name" in example]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(whole))
    assert load_recipe(tmp_path / "recipe.yaml").name == "mine"


@pytest.mark.parametrize("example", [example for example in EXAMPLES if "prompt_sets" in example])
def test_every_prompt_set_can_be_read(example: dict[str, object], tmp_path: Path) -> None:
    assert parse_prompt_sets(example["prompt_sets"], tmp_path / "recipe.yaml")


def test_every_kind_and_key_of_a_prompt_source_is_described() -> None:
    rows = {found[1]: found[0] for found in re.finditer(r"^\| `(\w+)` \|.*$", TEXT, re.MULTILINE)}
    for kind in PROMPT_KINDS:
        for field in dataclasses.fields(PROMPT_KINDS.get(kind).Parameters):
            assert f"`{field.name}`" in rows[kind], (kind, field.name)
    assert set(TEXT_MODELS) <= set(rows)
    assert set(SOURCES) <= set(rows)


def test_every_reason_of_the_guards_is_described() -> None:
    guards = (Path(__file__).parents[3] / "src/forgery_det/recipes/prompting/guards.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r'(?:return|else \()\s*\(?"([a-z_]+)", ', guards))
    assert reasons == {"refused", "empty", "truncated", "repeats", "not_longer"} | {"language"}
    assert all(f"`{reason}`" in TEXT for reason in reasons)
    assert len(LANGUAGES) == 13


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (DOC.parent / target).exists(), target
