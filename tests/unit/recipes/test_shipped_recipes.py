"""The tables of the shipped recipes agree with each other and with their README; no download."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

import pytest

from forgery_det.core.errors import SourceError
from forgery_det.recipes import collect
from forgery_det.recipes.load import load_recipe, recipe_names
from forgery_det.recipes.sources import downloads

SAMPLES = Path(__file__).parents[3] / "data_recipes" / "samples"


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_recipe_has_a_readme_that_names_its_shortcuts() -> None:
    for name in recipe_names():
        text = (SAMPLES.parent / name / "README.md").read_text(encoding="utf-8")
        assert "## Known shortcuts" in text, name


def test_kept_images_say_of_their_generator_what_the_table_of_generators_says() -> None:
    known = {row["generator"]: row for row in rows("generators.csv")}
    kept = [row for row in rows("generated.csv") if row["use"] == "keep"]
    for row in kept:
        stated = known[row["generator"]]
        for column in ("paradigm", "decoder", "release_date"):
            assert row[column] == stated[column], (row["member"], column)


def test_a_known_generator_is_named_once() -> None:
    assert max(Counter(row["generator"] for row in rows("generators.csv")).values()) == 1


def test_an_image_is_listed_once() -> None:
    listed = Counter((row["package"], row["member"]) for row in [*rows("generated.csv"), *rows("photographs.csv")])
    assert max(listed.values()) == 1


def test_a_dropped_image_has_a_reason_and_no_box() -> None:
    for row in [*rows("generated.csv"), *rows("photographs.csv")]:
        assert (row["use"] == "drop") == bool(row["reason"]), row["member"]
        assert row["use"] == "keep" or not row.get("boxes"), row["member"]


def test_the_generators_of_the_question_are_never_trained_on() -> None:
    (rule,) = load_recipe("samples").split.rules
    assert rule.split == "test"
    assert set(rule.paradigm) == {"mllm", "unknown"}


def test_wild_mini_holds_the_sources_of_samples() -> None:
    samples, wild = load_recipe("samples"), load_recipe("wild_mini")
    assert {source.id for source in samples.sources} < {source.id for source in wild.sources}
    assert wild.align == samples.align
    assert wild.split.salt == samples.split.salt


def test_without_network_all_files_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_pip", lambda: (sys.executable, "-c", "import sys; sys.exit('no route to host')"))
    with pytest.raises(SourceError) as caught:
        collect("samples", tmp_path / "out", cache=tmp_path / "cache")
    recipe = load_recipe("samples")
    for source in recipe.sources:
        assert source.parameters.file in str(caught.value).partition("Not in the cache yet: ")[2]
