from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.safety.plan import PromptsSpec, load_plan
from forgery_det.safety.prompts import read_prompts
from synth.safety_plan import picture


def read(folder: Path, text: str, name: str = "p.csv", **changes: Any):
    (folder / name).write_text(text, encoding="utf-8")
    return read_prompts([PromptsSpec(name, **changes)], folder)


def test_columns_are_mapped(tmp_path: Path) -> None:
    text = "id,prompt,kind,language,prompt_level\n7,a lighthouse,sea,en,v1\n8,黄昏时的灯塔,,zh,v0\n"
    first, second = read(
        tmp_path, text, columns={"prompt_id": "id", "text": "prompt", "category": "kind"}, benchmark="mine"
    )
    assert (first.prompt_id, first.text, first.category) == ("7", "a lighthouse", "sea")
    assert (first.benchmark, first.language, first.prompt_level, first.image) == ("mine", "en", "v1", None)
    assert (second.text, second.category, second.prompt_level) == ("黄昏时的灯塔", "", "v0")


def test_json_lines_and_parquet_are_read_alike(tmp_path: Path) -> None:
    table = pl.DataFrame({"prompt_id": ["a", "b"], "text": ["a heron", "an otter"]})
    table.write_parquet(tmp_path / "p.parquet")
    table.write_ndjson(tmp_path / "p.jsonl")
    specs = [PromptsSpec("p.parquet"), PromptsSpec("p.jsonl")]
    assert read_prompts(specs[:1], tmp_path) == read_prompts(specs[1:], tmp_path)
    assert [prompt.text for prompt in read_prompts([PromptsSpec("p.jsonl", limit=1)], tmp_path)] == ["a heron"]


def test_without_ids_a_prompt_is_named_by_benchmark_and_text(tmp_path: Path) -> None:
    (one,) = read(tmp_path, "text\na heron\n", benchmark="x")
    (again,) = read(tmp_path, "text\na heron\n", benchmark="x", name="other.csv")
    (other,) = read(tmp_path, "text\na heron\n", benchmark="y")
    assert one.prompt_id == again.prompt_id != other.prompt_id
    assert len(one.prompt_id) == 16


def test_a_picture_belongs_to_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    (one,) = read(tmp_path, "text,image\nwhat is this?,a.png\n")
    assert one.image == picture()
    with pytest.raises(ConfigError, match=r"no file .*b.png .*row 1"):
        read(tmp_path, "text,image\nwhat is this?,b.png\n")


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("prompt\na heron\n", {}, "a column for `text`, got prompt"),
        ("text\na heron\n", {"columns": {"txt": "text"}}, "Unknown field 'txt'.*did you mean 'text'"),
        ("text\na heron\n", {"columns": {"text": "prompt"}}, "Unknown column 'prompt'"),
        ("text,language\na heron,en\n,en\n", {}, "a text, got nothing .*row 2"),
        ("text,prompt_level\na heron,v7\n", {}, "`prompt_level` in .*got 'v7'"),
        ("text\n", {}, "prompts, got none"),
        ("prompt_id,text\na,x\na,y\n", {}, "each prompt once at each level, got 'a' at v0 again"),
        ("text\nx\n", {"name": "p.txt"}, "a file of .csv"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, text, **changes)


def test_unreadable_tables_are_told(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"no table")
    for name in ("p.parquet", "none.csv"):
        with pytest.raises(ConfigError, match="readable table of prompts"):
            read_prompts([PromptsSpec(name)], tmp_path)


def test_the_same_idea_at_several_levels_is_one_prompt(tmp_path: Path) -> None:
    found = read(tmp_path, "prompt_id,text,prompt_level\na,x,v0\na,x at length,v1\n")
    assert [(prompt.prompt_id, prompt.prompt_level) for prompt in found] == [("a", "v0"), ("a", "v1")]


def test_the_shipped_prompts_are_many_and_in_two_languages() -> None:
    plan = load_plan("reciprocity")
    prompts = read_prompts(plan.prompts, plan.folder)
    assert len(prompts) >= 40
    assert {prompt.language for prompt in prompts} == {"en", "zh"}
    assert all(prompt.category and prompt.benchmark for prompt in prompts)
