"""The tables of the shipped recipes agree with each other and with their README; no download."""

from __future__ import annotations

import csv
import functools
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest

from forgery_det.core.errors import SourceError
from forgery_det.recipes import collect
from forgery_det.recipes.licences import forbids_commerce
from forgery_det.recipes.load import load_recipe, recipe_names
from forgery_det.recipes.plan import plan
from forgery_det.recipes.recipe import Recipe
from forgery_det.recipes.sources import downloads

SAMPLES = Path(__file__).parents[3] / "data_recipes" / "samples"


@functools.cache
def loaded(name: str) -> Recipe:
    return load_recipe(name)


@pytest.fixture
def socket_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection leaves this process."""

    def refuse(*_: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


SHIPPED = {
    "aigibench", "aligned_reconstruction", "community_forensics", "diffusiondb", "gemini_image", "genimage",
    "gpt_image", "held_out_generators", "inpainting", "long_prompts", "mllm_vs_diffusion", "openfake", "samples",
    "synthbuster", "wild_mini",
}  # fmt: skip
STUDY = {
    "stable-diffusion-3.5-large", "stable-diffusion-3.5-large-turbo", "bagel-7b-mot", "janus-1.3b", "janus-pro-7b",
    "tokenflow-t2i", "vila-u-7b-256",
}  # fmt: skip


def test_every_recipe_is_known_here() -> None:
    assert set(recipe_names()) == SHIPPED


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_recipe_can_be_planned_without_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket_disabled: None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    foreseen = plan(name, tmp_path / "out", cache=tmp_path / "cache")
    assert not list(tmp_path.iterdir())
    recipe = loaded(name)
    assert {row.source for row in foreseen.rows} == {source.id for source in recipe.sources}
    labels = {source.label for source in recipe.sources}
    assert labels in ({0, 1}, {None}), "both classes, or the source says it image by image"
    for source in recipe.sources:
        assert source.licence, source.id
    made = [row for row in foreseen.rows if row.to_make]
    for row in made:
        assert row.generator, row.source
        assert row.images == row.to_make


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_readme_tells_what_a_reader_must_know(name: str) -> None:
    text = (SAMPLES.parent / name / "README.md").read_text(encoding="utf-8")
    for heading in ("## Known shortcuts", "## Citation", "## How a row got its label"):
        assert heading in text or name == "wild_mini", heading
    assert "licence" in text
    if name not in ("samples", "wild_mini"):
        assert f"forgery-det collect {name} --out" in text
        assert "## Not verified" in text, "what was checked and what was not"


def test_the_study_names_its_seven_generators_at_three_lengths() -> None:
    recipe = load_recipe("mllm_vs_diffusion")
    made = [source.parameters for source in recipe.sources if source.kind == "generate"]
    assert {parameters.resolved().name for parameters in made} == STUDY
    assert {parameters.levels for parameters in made} == {("v0", "v1", "v2")}


def test_held_out_generators_share_no_row_and_no_generator_with_the_others() -> None:
    recipe = load_recipe("held_out_generators")
    seen, unseen = (recipe.prompt_sets[name].parameters for name in ("seen", "unseen"))
    assert seen.first_row + seen.max_rows <= unseen.first_row
    photographs = [source.parameters for source in recipe.sources if source.kind == "huggingface"]
    assert [(one.first_item, one.max_items) for one in photographs] == [(0, 2000), (unseen.first_row, unseen.max_rows)]
    fixed = {source.id: source.fields.get("split") for source in recipe.sources}
    assert [name for name, split in fixed.items() if split == "test"] == [
        "coco-unseen", "sd35-large", "qwen-image", "janus-pro",
    ]  # fmt: skip
    assert "test" not in recipe.split.fractions


def test_non_commercial_collections_are_marked_so() -> None:
    for name in SHIPPED:
        recipe = loaded(name)
        if any(forbids_commerce(source.licence or "") for source in recipe.sources):
            assert recipe.commercial_use == "no", name


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
