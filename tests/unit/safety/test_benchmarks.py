"""Benchmark sets by name; the files here are made up, and harmless."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.cli.listing import list_names
from forgery_det.core.errors import ConfigError, SourceError, UnknownNameError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.core.types import PROMPT_LEVELS
from forgery_det.recipes.schema import parse_section
from forgery_det.safety.benchmarks import benchmark_sets
from forgery_det.safety.plan import PromptsSpec
from forgery_det.safety.prompts import read_prompts
from forgery_det.safety.types import SafetyPrompt
from synth.images import smooth_image

ISSUE = {"i2p", "lexica", "4chan", "template", "template_long", "template_long_zh", "t2i_risky_prompt"}
FOXES = {"prompt": ["a red fox", "a cup", "a red fox"], "categories": ["animal", "thing, kitchen", None]}


def read(folder: Path, **given: Any) -> tuple[SafetyPrompt, ...]:
    return read_prompts([parse_section(PromptsSpec, given, "plan.yaml: prompts[0]")], folder)


def test_the_sets_of_the_issue_are_there() -> None:
    sets = benchmark_sets()
    assert set(sets) >= ISSUE
    assert any(name.startswith("unisafe") for name in sets)
    for name, known in sets.items():
        assert "text" in known.columns, name
        assert known.prompt_level in PROMPT_LEVELS, name
        assert known.homepage.startswith("https://"), name
        # What is stated is either backed by an address or marked as unchecked.
        assert "columns" in known.sources or "columns" in known.unverified, name
        assert known.licence is not None or "licence" in known.unverified, name
        assert known.dataset is None or known.revision is not None or "revision" in known.unverified, name
        assert all(address.startswith("https://") for address in known.sources.values()), name


def test_a_download_is_read_as_the_set(tmp_path: Path) -> None:
    pl.DataFrame(FOXES).write_csv(tmp_path / "i2p.csv")
    prompts = read(tmp_path, benchmark_set="i2p", path="i2p.csv")
    assert [(one.prompt_id, one.text, one.category) for one in prompts] == [
        ("i2p/000000", "a red fox", "animal"),
        ("i2p/000001", "a cup", "thing, kitchen"),
        ("i2p/000002", "a red fox", ""),
    ]
    assert {(one.benchmark, one.language, one.prompt_level) for one in prompts} == {("i2p", "en", "v0")}
    assert [one.prompt_id for one in read(tmp_path, benchmark_set="i2p", path="i2p.csv", limit=1)] == ["i2p/000000"]


def test_columns_of_the_plan_overrule_those_of_the_set(tmp_path: Path) -> None:
    long = {"text_zh": ["一只红色的狐狸站在雪里"], "key": ["fox"]}
    short = {"prompt": ["a red fox"], "key": ["fox"]}
    pl.DataFrame(long).write_parquet(tmp_path / "long.parquet")
    pl.DataFrame(short).write_ndjson(tmp_path / "short.jsonl")
    specs = [
        PromptsSpec("short.jsonl", {"prompt_id": "key"}, benchmark_set="template"),
        PromptsSpec(
            "long.parquet", {"text": "text_zh", "prompt_id": "key"}, benchmark="mine", benchmark_set="template_long_zh"
        ),
    ]
    one, other = read_prompts(specs, tmp_path)
    # The same idea in two lengths: levels of one prompt.
    assert (one.prompt_id, one.prompt_level, one.language, one.benchmark) == ("fox", "v0", "en", "template")
    assert (other.prompt_id, other.prompt_level, other.language, other.benchmark) == ("fox", "v1", "zh", "mine")


def test_json_with_labels_as_names(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a red fox", "label": {"animal——fox": ["it is one"]}},
        {"prompt": "a cup", "label": {"thing——cup": ["so it looks"], "kitchen——cup": []}},
    ]
    (tmp_path / "T2I-RiskyPrompt.json").write_text(json.dumps(rows))
    prompts = read(tmp_path, benchmark_set="t2i_risky_prompt", path="T2I-RiskyPrompt.json")
    assert [one.category for one in prompts] == ["animal——fox", "thing——cup, kitchen——cup"]
    (tmp_path / "other.json").write_text('{"prompt": "a red fox"}')
    with pytest.raises(ConfigError, match="Expected a list of objects"):
        read(tmp_path, benchmark_set="t2i_risky_prompt", path="other.json")


def test_one_task_of_a_set_with_several(tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(encode_image(smooth_image(0), "png", None))
    cases = [
        {"id": "r1", "scenario_type": "TI", "category": "a", "instruction": "a red fox", "input_image": None},
        {"id": "r1", "scenario_type": "IE", "category": "a", "instruction": "add snow", "input_image": "fox.png"},
        {"id": "r2", "scenario_type": "TI", "category": "b", "instruction": "a cup", "input_image": None},
    ]
    pl.DataFrame(cases).write_ndjson(tmp_path / "cases.jsonl")
    specs = [PromptsSpec("cases.jsonl", benchmark_set=f"unisafe_{task}") for task in ("text_to_image", "image_editing")]
    prompts = read_prompts(specs, tmp_path)
    assert [(one.prompt_id, one.text, one.image is not None) for one in prompts] == [
        ("unisafe_text_to_image/r1", "a red fox", False),
        ("unisafe_text_to_image/r2", "a cup", False),
        ("unisafe_image_editing/r1", "add snow", True),
    ]
    limited = read(tmp_path, benchmark_set="unisafe_text_to_image", path="cases.jsonl", limit=2)
    assert [one.text for one in limited] == ["a red fox", "a cup"]


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        ({}, ConfigError, "Expected `path` or `benchmark_set`, got neither"),
        ({"benchmark_set": "i2q"}, UnknownNameError, "did you mean 'i2p'"),
        ({"benchmark_set": "4chan"}, ConfigError, r"access: on request\), got none: get it from https://zenodo"),
        ({"benchmark_set": "i2p", "path": "foxes.csv", "columns": {"text": "promt"}}, ConfigError, "'prompt'"),
        ({"benchmark_set": "i2p", "path": "foxes.csv", "columns": {"texts": "prompt"}}, ConfigError, "Unknown field"),
        ({"benchmark_set": "i2p", "path": "none.csv"}, ConfigError, "Expected a readable table"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, given: dict[str, Any], error: type[Exception], complaint: str) -> None:
    pl.DataFrame(FOXES).write_csv(tmp_path / "foxes.csv")
    with pytest.raises(error, match=complaint):
        read(tmp_path, **given)


@pytest.mark.slow
def test_a_folder_is_streamed_as_the_hub_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "i2p"
    folder.mkdir()
    pl.DataFrame(FOXES).write_csv(folder / "i2p_benchmark.csv")
    prompts = read(tmp_path, benchmark_set="i2p", path="i2p")
    assert [one.text for one in prompts] == FOXES["prompt"]
    with pytest.raises(SourceError, match="Expected to read 'UniSAFE, text to image"):
        read(tmp_path, benchmark_set="unisafe_text_to_image", path="i2p")


@pytest.mark.slow
def test_pictures_are_streamed_as_they_are(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    from PIL import Image

    picture = Image.fromarray(smooth_image(0))
    rows = {
        "id": ["r1", "r2"], "scenario_type": ["IE", "TI"], "category": ["a", "b"],
        "instruction": ["add snow", "a cup"], "input_image": [picture, None],
    }  # fmt: skip
    features = datasets.Features({name: datasets.Value("string") for name in rows} | {"input_image": datasets.Image()})
    folder = tmp_path / "unisafe"
    (folder / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "data" / "image-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: image\n    path: data/image-*\n---\n"
    )
    (prompt,) = read(tmp_path, benchmark_set="unisafe_image_editing", path="unisafe")
    assert prompt.image is not None
    assert (decode_image(prompt.image).image_HWC == smooth_image(0)).all()
    assert Image.open(io.BytesIO(prompt.image)).size == picture.size


def test_they_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert list_names("benchmarks") == 0
    said = capsys.readouterr().out
    assert "Inappropriate Image Prompts (en, 4703 prompts; access: open; AIML-TUDA/i2p)" in said
    assert all(name in said for name in benchmark_sets())
