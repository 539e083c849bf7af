from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from forgery_det.recipes.generate.job import derive_seed
from forgery_det.recipes.generate.store import JobStore
from forgery_det.recipes.load import load_recipe
from synth.generating import begun, prompt_recipe, toy_generator
from synth.images import folder_sources, tree, write_images

PROMPTS = ["a red fox", "refuse this", "a house in the snow", "block that", "fail me"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "jobs.log"


def source(log: Path, generator: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {"id": "toys", "prompts": "ideas", "generator": toy_generator(log, **(generator or {}))} | changes


def collected(recipe: Path, tmp_path: Path, name: str = "out") -> pl.DataFrame:
    collect(recipe, tmp_path / name, cache=tmp_path / "cache")
    return Manifest.load(tmp_path / name).frame


def quarantine(tmp_path: Path, name: str = "out") -> dict[str, str]:
    frame = pl.read_parquet(tmp_path / name / "quarantine.parquet")
    return dict(zip(frame["key"], frame["reason"], strict=True))


def notes(tmp_path: Path, name: str = "out") -> list[dict[str, Any]]:
    return [json.loads(text) for text in pl.read_parquet(tmp_path / name / "origins.parquet")["notes"]]


def test_prompts_become_images_and_refusals_are_data(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", PROMPTS, source(log, images_per_prompt=2))
    frame = collected(recipe, tmp_path)
    assert Counter(frame["prompt"]) == {"a red fox": 2, "a house in the snow": 2}
    assert set(frame["generator"]) == {"toy"}
    assert set(frame["paradigm"]) == {"diffusion"}
    assert set(frame["label"]) == {1}
    assert frame["release_date"][0].isoformat() == "2024-01-01"
    assert frame.filter(pl.col("prompt") == "a red fox")["content_id"].unique().to_list() == ["c0"]
    assert Counter(quarantine(tmp_path).values()) == {"refused": 2, "blocked": 2, "generation_failed": 2}
    # Both images of a prompt are one group: a detector that saw one must not be tested on the other.
    assert frame.group_by("prompt").agg(pl.col("split").n_unique())["split"].to_list() == [1, 1]


def test_origins_tell_how_an_image_was_made(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", ["a red fox"], source(log, seed=3, generator={"parameters": {"steps": 4}}))
    frame = collected(recipe, tmp_path)
    (note,) = notes(tmp_path)
    assert note["request"]["prompt"] == "a red fox"
    assert note["request"]["parameters"] == {"steps": 4}
    assert note["request"]["seed"] == derive_seed(3, frame["prompt_id"][0], 0) == note["provenance"]["seed"]
    assert note["provenance"]["model_version_returned"] == "toy-1"
    # How long it took is in the store alone: a dataset does not depend on it.
    assert "duration_s" not in note["provenance"]
    stored = json.loads(JobStore(tmp_path / "cache").path(note["job_id"]).read_text())
    assert stored["provenance"]["duration_s"] >= 0


def test_a_second_run_does_no_job_again_but_the_failed_one(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", PROMPTS, source(log))
    collected(recipe, tmp_path)
    first = begun(log)
    before = tree(tmp_path / "out")
    collected(recipe, tmp_path)
    again = begun(log)[len(first) :]
    failed = {job_id for job_id in first if not JobStore(tmp_path / "cache").is_done(job_id)}
    assert len(first) == 5
    assert set(again) == failed
    assert len(failed) == 1
    assert tree(tmp_path / "out") == before


def test_another_dataset_takes_what_the_store_has(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", PROMPTS[:4], source(log))
    collected(recipe, tmp_path)
    collected(recipe, tmp_path, "again")
    assert len(begun(log)) == 4
    assert tree(tmp_path / "again") == tree(tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"seed": 1}, marks=pytest.mark.slow),
        {"generator": {"parameters": {"steps": 9}}},
        pytest.param({"generator": {"model_version": "v2"}}, marks=pytest.mark.slow),
    ],
)
def test_a_changed_parameter_makes_new_jobs(tmp_path: Path, log: Path, change: dict[str, Any]) -> None:
    collected(prompt_recipe(tmp_path / "r", PROMPTS[:1], source(log)), tmp_path)
    collected(prompt_recipe(tmp_path / "r", PROMPTS[:1], source(log, **change)), tmp_path)
    assert len(set(begun(log))) == 2


def test_more_images_and_prompts_leave_the_others_alone(tmp_path: Path, log: Path) -> None:
    before = collected(prompt_recipe(tmp_path / "r", ["a house"], source(log)), tmp_path)
    after = collected(prompt_recipe(tmp_path / "r", ["a house", "a fox"], source(log, images_per_prompt=2)), tmp_path)
    assert len(begun(log)) == 4
    assert set(before["image_id"]) < set(after["image_id"])


def test_a_budget_stops_cleanly_and_the_next_run_goes_on(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", [f"fox {n}" for n in range(5)], source(log, budget={"images": 2}))
    assert [collected(recipe, tmp_path).height, len(begun(log))] == [2, 2]
    assert set(quarantine(tmp_path).values()) == {"not_generated"}
    assert [collected(recipe, tmp_path).height, len(begun(log))] == [4, 4]
    assert [collected(recipe, tmp_path).height, len(begun(log))] == [5, 5]
    assert quarantine(tmp_path) == {}


@pytest.mark.slow
def test_limit_counts_prompts(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", ["a", "b", "c"], source(log, limit=2, images_per_prompt=2))
    assert Counter(collected(recipe, tmp_path)["prompt"]) == {"a": 2, "b": 2}


def real_and(tmp_path: Path, log: Path, count: int = 3, **changes: Any) -> list[dict[str, Any]]:
    write_images(tmp_path / "images" / "real", count, generated=False)
    photos = folder_sources(tmp_path / "images")[0]
    return [photos, {"id": "toys", "images": "photos", "generator": toy_generator(log)} | changes]


def test_images_of_another_source_are_inputs_and_stay_with_their_originals(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", ["unused"], *real_and(tmp_path, log))
    frame = collected(recipe, tmp_path)
    real, fake = (frame.filter(pl.col("label") == label).sort("content_id") for label in (0, 1))
    assert real.height == fake.height == 3
    assert real["content_id"].to_list() == fake["content_id"].to_list()
    assert real["source_id"].to_list() == fake["source_id"].to_list()
    assert real["split"].to_list() == fake["split"].to_list()
    inputs = {note["request"]["image_sha256"] for note in notes(tmp_path) if note}
    originals = pl.read_parquet(tmp_path / "out" / "origins.parquet").filter(pl.col("source") == "photos")
    assert inputs == set(originals["original_sha256"])  # the bytes before alignment, not after it


def test_inputs_are_read_once(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = prompt_recipe(tmp_path / "r", ["unused"], *real_and(tmp_path, log))
    collected(recipe, tmp_path)
    reads: list[bytes] = []
    put = JobStore.put_input
    monkeypatch.setattr(JobStore, "put_input", lambda self, data: (reads.append(data), put(self, data))[1])
    collected(recipe, tmp_path)
    assert reads == []
    (tmp_path / "images" / "real" / "00000.jpeg").write_bytes((tmp_path / "images/real/00001.jpeg").read_bytes() + b"x")
    collected(recipe, tmp_path)
    assert len(reads) == 1


def test_masks_lie_in_the_dataset(tmp_path: Path, log: Path) -> None:
    mask = {"rule": "box", "share": [0.2, 0.3]}
    recipe = prompt_recipe(tmp_path / "r", ["unused"], *real_and(tmp_path, log, mask=mask, prompt="a fox"))
    collected(recipe, tmp_path)
    with_mask = [note for note in notes(tmp_path) if note]
    assert len(with_mask) == 3
    for note in with_mask:
        assert note["mask_rule"] == "box"
        assert (tmp_path / "out" / note["mask"]).stem == note["request"]["mask_sha256"]
        assert (tmp_path / "out" / note["mask"]).is_file()


def test_masks_of_a_source_are_found_by_key(tmp_path: Path, log: Path) -> None:
    sources = real_and(tmp_path, log, count=3, mask={"rule": "source", "images": "masks"})
    write_images(tmp_path / "masks", 2, generated=False, codec="png", seed=5)
    masks = {"id": "masks", "kind": "folder", "root": str(tmp_path / "masks"), "label": "real", "licence": "CC0"}
    frame = collected(prompt_recipe(tmp_path / "r", ["unused"], *sources, masks), tmp_path)
    assert frame.filter(pl.col("label") == 1).height == 2
    assert quarantine(tmp_path) == {"00002.jpeg/0": "no_mask"}


def test_images_meet_the_prompts_of_their_content(tmp_path: Path, log: Path) -> None:
    sources = real_and(tmp_path, log, count=3, prompts="ideas")
    sources[0] |= {"annotations": "photos.csv"}
    (tmp_path / "r").mkdir()
    rows = "".join(f"{index:05d}.jpeg,c{index}\n" for index in range(3))
    (tmp_path / "r" / "photos.csv").write_text("member,content_id\n" + rows)
    frame = collected(prompt_recipe(tmp_path / "r", ["first", "second"], *sources), tmp_path)
    fakes = frame.filter(pl.col("label") == 1)
    assert dict(zip(fakes["content_id"], fakes["prompt"], strict=True)) == {"c0": "first", "c1": "second"}
    assert quarantine(tmp_path) == {"00002.jpeg": "no_prompt"}


def test_a_broken_input_is_named(tmp_path: Path, log: Path) -> None:
    sources = real_and(tmp_path, log)
    (tmp_path / "images" / "real" / "broken.jpeg").write_bytes(b"broken")
    collected(prompt_recipe(tmp_path / "r", ["unused"], *sources), tmp_path)
    frame = pl.read_parquet(tmp_path / "out" / "quarantine.parquet")
    rows = frame.select("source", "key", "reason").rows()
    assert rows == [("photos", "broken.jpeg", "not_an_image"), ("toys", "broken.jpeg", "input_unusable")]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompts": None}, "Expected `prompts` or `images`: what images are made of, got neither"),
        ({"prompt": "x"}, "Expected `prompts` or `prompt`, got both"),
        ({"mask": {"rule": "box"}}, "Expected `images` where there is a `mask`, got none"),
        ({"images_per_prompt": 0}, "Expected `images_per_prompt` of at least 1, got 0"),
        ({"budget": {"usd": -1}}, "Expected `usd` of at least 0, got -1.0"),
        ({"executor": "lokal"}, "Unknown executor 'lokal': did you mean 'local'?"),
        ({"generator": {"name": "nobody"}}, "Unknown generator 'nobody'"),
    ],
)
def test_mistakes_are_named_when_the_recipe_is_read(
    tmp_path: Path, log: Path, change: dict[str, Any], text: str
) -> None:
    recipe = prompt_recipe(tmp_path / "r", PROMPTS, source(log) | change)
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe)
    assert text in str(caught.value)
    assert "sources[0]" in str(caught.value)


def test_an_unknown_prompt_set_or_source_is_named(tmp_path: Path, log: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown prompt set 'idea'.*did you mean 'ideas'"):
        load_recipe(prompt_recipe(tmp_path / "r", PROMPTS, source(log, prompts="idea")))
    for changes in ({"images": "photo"}, {"mask": {"rule": "source", "images": "photo"}}):
        sources = real_and(tmp_path, log, **changes)
        with pytest.raises(ConfigError, match=r"Unknown source 'photo'.*images\): did you mean 'photos'"):
            load_recipe(prompt_recipe(tmp_path / "r", PROMPTS, *sources))


def test_nothing_is_made_of_itself(tmp_path: Path, log: Path) -> None:
    sources = real_and(tmp_path, log, images="toys")
    with pytest.raises(ConfigError, match=r"Unknown source 'toys' .*Known: photos"):
        load_recipe(prompt_recipe(tmp_path / "r", PROMPTS, *sources))


def test_a_level_that_the_set_lacks_is_an_error(tmp_path: Path, log: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown level 'v1' of prompt set 'ideas'.*Known: v0"):
        load_recipe(prompt_recipe(tmp_path / "r", PROMPTS, source(log, levels=["v1"])))


def test_what_is_generated_has_a_licence(tmp_path: Path, log: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected the key `licence` of what is generated, got none .*'toys'"):
        load_recipe(prompt_recipe(tmp_path / "r", PROMPTS, source(log, licence=None)))


@pytest.mark.parametrize(
    ("generator", "changes", "text"),
    [
        ({"task": "inpainting"}, {}, "Expected a `mask` for inpainting, got none"),
        ({"task": "image_to_image"}, {"mask": {}}, "Expected no `mask` where nothing is inpainted"),
        ({}, {}, "Expected no `images` for generator kind 'diffusers' as it is set up"),
        ({"task": "image_to_image"}, {"images": None, "prompts": "ideas"}, "Expected `images` for generator kind"),
        ({"task": "image_to_image"}, {"prompt": None}, "Expected `prompts` or `prompt` for generator kind 'diffusers'"),
    ],
)
def test_parts_that_do_not_go_together_are_named(
    tmp_path: Path, log: Path, generator: dict[str, Any], changes: dict[str, Any], text: str
) -> None:
    named = {"name": "stable-diffusion-1.5"} | generator
    given = {"generator": named} | ({} if "prompts" in changes else {"prompt": "a fox"}) | changes
    with pytest.raises(ConfigError, match=text):
        collected(prompt_recipe(tmp_path / "r", PROMPTS, *real_and(tmp_path, log, **given)), tmp_path)


def test_an_index_that_a_kill_cut_short_loses_its_last_line_alone(tmp_path: Path, log: Path) -> None:
    recipe = prompt_recipe(tmp_path / "r", ["unused"], *real_and(tmp_path, log))
    collected(recipe, tmp_path)
    (index,) = (tmp_path / "out" / ".work").glob("inputs-*.index")
    whole = index.read_bytes()
    index.write_bytes(whole[:-9])
    collected(recipe, tmp_path)
    assert index.read_bytes() == whole
    assert len(begun(log)) == 3
