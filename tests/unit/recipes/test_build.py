from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress
from forgery_det.recipes import gather
from forgery_det.recipes.annotations import read_annotations
from forgery_det.recipes.build import collect
from forgery_det.recipes.process import Steps
from forgery_det.recipes.recipe import CropPolicy, FilterPolicy
from forgery_det.recipes.sources.base import SourceItem
from forgery_det.recipes.sources.folder import FolderSource
from forgery_det.recipes.work import Journal, Record, exclusive
from synth.images import (
    checkered_image,
    folder_sources,
    recipe_dict,
    smooth_image,
    tree,
    write_images,
    write_recipe,
    write_wheel,
)


def _change(recipe: Path, **changes: Any) -> None:
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | changes))


def _quarantine(dataset: Path) -> list[tuple[str, str, str]]:
    return list(pl.read_parquet(dataset / "quarantine.parquet").select("source", "key", "reason").iter_rows())


def test_a_dataset_is_what_the_recipe_says(folder_recipe: Path, image_folder: Path, tmp_path: Path) -> None:
    summary = collect(folder_recipe, tmp_path / "out")
    frame = Manifest.load(tmp_path / "out").frame
    assert summary.n_images == frame.height == 24
    assert summary.changed
    assert summary.refused == {}
    for row in frame.iter_rows(named=True):
        data = (tmp_path / "out" / row["path"]).read_bytes()
        assert row["image_id"] == sha256_bytes(data)
        with Image.open(io.BytesIO(data)) as image:
            # 96 x 80 px brought to a short side of 48 px: 57.6 rounds to 58.
            assert (image.format, image.size) == ("WEBP", (58, 48))
        assert (row["width_px"], row["height_px"], row["codec"], row["jpeg_quality"]) == (58, 48, "webp", None)
    origins = pl.read_parquet(tmp_path / "out" / "origins.parquet")
    assert origins.sort("source", "key", "crop").equals(origins)
    original = (image_folder / "real" / "00000.jpeg").read_bytes()
    real, fake = frame.filter(label=0).row(0, named=True), frame.filter(label=1).row(0, named=True)
    assert (real["generator"], real["paradigm"], real["decoder"]) == ("camera", "camera", "unknown")
    assert (fake["generator"], fake["paradigm"], str(fake["release_date"])) == ("checker-1", "gan", "2020-01-31")
    assert (real["source"], real["recipe"]) == ("photos", "synthetic")
    assert real["source_id"] == f"sha256:{sha256_bytes(original)[:16]}"
    assert origins["image_id"].equals(frame["image_id"])
    first = origins.filter(source="photos").row(0, named=True)
    assert first["original_sha256"] == sha256_bytes(original)
    assert (first["width_px"], first["height_px"], first["n_bytes"]) == (96, 80, len(original))
    assert (first["codec"], first["jpeg_quality"]) == ("jpeg", 92)


def test_dataset_json_counts_what_is_there(folder_recipe: Path, tmp_path: Path) -> None:
    summary = collect(folder_recipe, tmp_path / "out")
    card = json.loads((tmp_path / "out" / "dataset.json").read_text())
    frame = Manifest.load(tmp_path / "out").frame
    assert card["name"] == "synthetic"
    assert card["n_images"] == 24
    assert card["counts"]["label"] == {"0": 12, "1": 12}
    assert card["counts"]["generator"] == {"camera": 12, "checker-1": 12}
    for split, of_split in summary.counts.items():
        for label, n in of_split.items():
            assert card["counts"]["split_label"][f"{split},{label}"] == n
            assert frame.filter(split=split, label=label).height == n
    assert card["policies"]["align"]["quality"] == 90
    assert card["licences"] == {"CC0": 24}
    assert card["manifest_digest"] == Manifest.load(tmp_path / "out").digest()


def test_twice_gives_the_same_bytes_and_again_is_no_work(
    folder_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(folder_recipe, tmp_path / "a")
    collect(folder_recipe, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a", without=()) == tree(tmp_path / "b", without=())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}

    def process(item: Any, *_: Any) -> Record:
        raise AssertionError(f"{item.key} was processed again")

    monkeypatch.setattr(gather, "process", process)
    summary = collect(folder_recipe, tmp_path / "a")
    assert not summary.changed
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if ".work" not in p.parts} == {
        p: t for p, t in before.items() if ".work" not in p.parts
    }


def test_only_new_and_changed_files_are_processed(
    folder_recipe: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(folder_recipe, tmp_path / "out")
    before = Manifest.load(tmp_path / "out").frame
    (image_folder / "real" / "00003.jpeg").write_bytes(encode_image(smooth_image(777), "jpeg", 92))
    (image_folder / "real" / "00004.jpeg").unlink()
    (image_folder / "real" / "00099.jpeg").write_bytes(encode_image(smooth_image(778), "jpeg", 92))
    processed: list[str] = []
    process = gather.process
    monkeypatch.setattr(gather, "process", lambda item, *rest: (processed.append(item.key), process(item, *rest))[1])
    collect(folder_recipe, tmp_path / "out")
    assert sorted(processed) == ["00003.jpeg", "00099.jpeg"]
    after = Manifest.load(tmp_path / "out").frame
    # Adding data moves no image between splits.
    both = before.join(after, on="image_id", suffix="_after")
    assert both.height == 22
    assert both["split"].equals(both["split_after"].rename("split"))
    collect(folder_recipe, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"align": {"short_side_px": 40, "max_side_px": None, "codec": "jpeg", "quality": 80}},
        {"split": {"fractions": {"test": 1.0}, "salt": "x"}},
        {"filter": {"min_side_px": 32, "min_std": 15}},
        {"dedup": {"phash_distance": 16}},
        {"seed": 5},
    ],
)
def test_a_changed_recipe_gives_what_a_fresh_folder_gives(
    folder_recipe: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    collect(folder_recipe, tmp_path / "out")
    old = tree(tmp_path / "out")
    before = folder_recipe.read_text()
    _change(folder_recipe, **changes)
    collect(folder_recipe, tmp_path / "fresh")
    assert collect(folder_recipe, tmp_path / "out").changed
    assert tree(tmp_path / "out", without=()) == tree(tmp_path / "fresh", without=())
    folder_recipe.write_text(before)
    collect(folder_recipe, tmp_path / "out")
    assert tree(tmp_path / "out") == old


def test_lost_and_damaged_images_are_made_again(folder_recipe: Path, tmp_path: Path) -> None:
    collect(folder_recipe, tmp_path / "out")
    old = tree(tmp_path / "out")
    paths = list(Manifest.load(tmp_path / "out").frame["path"])
    (tmp_path / "out" / paths[0]).unlink()
    (tmp_path / "out" / paths[5]).write_bytes(b"short")
    (tmp_path / "out" / "images" / "00" / "stray.webp").parent.mkdir(exist_ok=True)
    (tmp_path / "out" / "images" / "00" / "stray.webp").write_bytes(b"stray")
    collect(folder_recipe, tmp_path / "out")
    assert tree(tmp_path / "out") == old


def test_refusals_are_listed_with_their_reason(folder_recipe: Path, image_folder: Path, tmp_path: Path) -> None:
    real = image_folder / "real"
    shutil.copy(real / "00000.jpeg", real / "copy.jpeg")
    shutil.copy(image_folder / "fake" / "00001.png", real / "lie.png")
    (real / "text.png").write_text("not an image")
    (real / "empty.png").write_bytes(b"")
    (real / "grey.png").write_bytes(encode_image(np.full((64, 64, 3), 90, np.uint8), "png", None))
    (real / "tiny.png").write_bytes(encode_image(smooth_image(5, 20, 20), "png", None))
    (real / "low.png").write_bytes(encode_image(smooth_image(6, 40, 40), "png", None))
    summary = collect(folder_recipe, tmp_path / "out")
    found = _quarantine(tmp_path / "out")
    assert {(key.partition("#")[0], reason) for _, key, reason in found} == {
        ("copy.jpeg", "duplicate_exact"),
        ("lie.png", "duplicate_across_classes"),
        ("00001.png", "duplicate_across_classes"),
        ("text.png", "not_an_image"),
        ("empty.png", "empty"),
        ("grey.png", "flat"),
        ("tiny.png", "too_small"),
        ("low.png", "too_small"),
    }
    assert summary.refused == {
        "duplicate_across_classes": 2,
        "duplicate_exact": 1,
        "empty": 1,
        "flat": 1,
        "not_an_image": 1,
        "too_small": 2,
    }
    assert Manifest.load(tmp_path / "out").frame.height == 23


def test_every_member_of_an_annotated_source_is_accounted_for(image_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "member,use,reason,generator,paradigm,source_id,width_px,subject,prompt\n"
        "00000.png,keep,,gen-a,mllm,scene:1,96,cat,A red  fox\n"
        "00001.png,keep,,gen-b,diffusion,scene:2,,,\n"
        "00002.png,drop,collage,,,,,,\n"
        "00003.png,keep,,gen-a,mllm,scene:3,4000,,\n"
    )
    source = {key: value for key, value in folder_sources(image_folder)[1].items() if key != "fields"}
    rules = [{"split": "test", "paradigm": "mllm"}]
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        [source | {"annotations": "t.csv"}],
        split={"fractions": {"train": 1.0}, "salt": "s", "rules": rules},
    )
    summary = collect(recipe, tmp_path / "out")
    assert summary.refused == {"collage": 1, "not_annotated": 8, "not_as_annotated": 1}
    rows = Manifest.load(tmp_path / "out").frame.to_dicts()
    assert [(row["generator"], row["source_id"], row["split"]) for row in rows] == [
        ("gen-a", "scene:1", "test"),
        ("gen-b", "scene:2", "train"),
    ]
    assert [row["prompt_words"] for row in rows] == [3, None]
    assert rows[0]["prompt_id"] == sha256_bytes(b"a red fox")[:16]
    assert pl.read_parquet(tmp_path / "out" / "origins.parquet")["notes"].to_list() == ['{"subject":"cat"}', "{}"]

    # Keeping a member that was dropped reads it now; dropping one needs no reading.
    table.write_text(
        table.read_text().replace("drop,collage,,", "keep,,gen-c,gan").replace("00001.png,keep,", "00001.png,drop,b")
    )
    collect(recipe, tmp_path / "out")
    assert Manifest.load(tmp_path / "out").frame["generator"].to_list() == ["gen-a", "gen-c"]

    table.write_text(table.read_text() + "gone.png,keep,,gen-a,mllm,scene:9,,,\n")
    with pytest.raises(SourceError, match=r"got 1 that it does not have, the first 'gone.png'"):
        collect(recipe, tmp_path / "out")


def test_crops_share_their_source_id_and_flat_crops_are_refused(tmp_path: Path) -> None:
    image_HWC = smooth_image(3, 200, 100)
    image_HWC[:, 100:] = 128
    (tmp_path / "images" / "real").mkdir(parents=True)
    (tmp_path / "images" / "real" / "x.png").write_bytes(encode_image(image_HWC, "png", None))
    source = folder_sources(tmp_path / "images")[0] | {"crops": {"count": 2, "size_px": 100}}
    write_images(tmp_path / "images" / "real", 2, generated=False, width_px=216, codec="png")
    recipe = write_recipe(tmp_path / "recipe.yaml", [source])
    collect(recipe, tmp_path / "out")
    frame = Manifest.load(tmp_path / "out").frame
    groups = frame["source_id"].to_list()
    assert len(set(groups)) == 3
    assert [groups.count(group) for group in groups] == [2, 2, 2, 2, 1]
    assert frame.group_by("source_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert _quarantine(tmp_path / "out") == [("photos", "x.png#crop1", "flat")]


def _boxed(image_folder: Path, table: str, **changes: Any) -> Path:
    """A recipe of four checkered images with a table; stored without loss, so that pixels can be compared."""
    for path in sorted((image_folder / "fake").glob("*.png"))[4:]:
        path.unlink()
    folder = image_folder.parent
    (folder / "t.csv").write_text(table)
    align = {"short_side_px": None, "max_side_px": None, "codec": "png", "quality": None}
    source = folder_sources(image_folder)[1] | {"annotations": "t.csv"} | changes
    return write_recipe(folder / "recipe.yaml", [source], align=align)


_BOXES = (
    "member,boxes,subject,source_id\n"
    '00000.png,"0,0,50,60;40,20,96,80",cat,scene:1\n'
    '00001.png,,dog,scene:2\n00002.png,"10,10,80,80",,scene:3\n00003.png,"0,0,96,31;0,0,40,40",,scene:4\n'
)


def _stored(dataset: Path) -> dict[tuple[str, int], np.ndarray]:
    rows = pl.read_parquet(dataset / "origins.parquet").join(Manifest.load(dataset).frame, on="image_id")
    return {
        (row["key"], row["crop"]): np.asarray(Image.open(dataset / row["path"])) for row in rows.iter_rows(named=True)
    }


def test_boxes_are_cut_right_after_decoding(image_folder: Path, tmp_path: Path) -> None:
    collect(_boxed(image_folder, _BOXES), tmp_path / "out")
    images = {name: checkered_image(int(name[:5])) for name in ("00000.png", "00001.png", "00002.png", "00003.png")}
    for name, image_HWC in images.items():
        with Image.open(image_folder / "fake" / name) as original:
            assert np.array_equal(np.asarray(original), image_HWC)
    stored = _stored(tmp_path / "out")
    assert set(stored) == {
        ("00000.png#box=0,0,50,60", 0),
        ("00000.png#box=40,20,96,80", 1),
        ("00001.png", 0),
        ("00002.png#box=10,10,80,80", 0),
        ("00003.png#box=0,0,40,40", 1),
    }
    assert np.array_equal(stored["00000.png#box=0,0,50,60", 0], images["00000.png"][:60, :50])
    assert np.array_equal(stored["00000.png#box=40,20,96,80", 1], images["00000.png"][20:80, 40:96])
    assert np.array_equal(stored["00001.png", 0], images["00001.png"])
    # The filter looks at the box: 31 px are too few for this recipe, though the whole image has 80.
    assert _quarantine(tmp_path / "out") == [("fakes", "00003.png#box=0,0,96,31#crop0", "too_small")]
    frame = Manifest.load(tmp_path / "out").frame
    assert frame["source_id"].to_list() == ["scene:1", "scene:1", "scene:2", "scene:3", "scene:4"]
    assert frame.group_by("source_id").agg(pl.col("split").n_unique())["split"].max() == 1
    notes = pl.read_parquet(tmp_path / "out" / "origins.parquet")["notes"].to_list()
    assert notes == ['{"subject":"cat"}', '{"subject":"cat"}', '{"subject":"dog"}', "{}", "{}"]


def test_crops_are_taken_from_the_box(image_folder: Path, tmp_path: Path) -> None:
    collect(_boxed(image_folder, _BOXES, crops={"count": 1, "size_px": 50}), tmp_path / "out")
    stored = _stored(tmp_path / "out")
    image_HWC = checkered_image(0)
    assert np.array_equal(stored["00000.png#box=40,20,96,80", 1], image_HWC[25:75, 43:93])
    assert np.array_equal(stored["00001.png", 0], checkered_image(1)[15:65, 23:73])
    assert _quarantine(tmp_path / "out") == [
        ("fakes", "00003.png#box=0,0,40,40#crop1", "too_small"),
        ("fakes", "00003.png#box=0,0,96,31#crop0", "too_small"),
    ]


def test_a_changed_box_rebuilds_that_item_alone(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _boxed(image_folder, _BOXES)
    table = tmp_path / "t.csv"
    assert table == recipe.parent / "t.csv"
    collect(recipe, tmp_path / "out")
    old = tree(tmp_path / "out", without=())
    processed: list[str] = []
    process = gather.process
    monkeypatch.setattr(gather, "process", lambda item, *rest: (processed.append(item.key), process(item, *rest))[1])
    for change in (("10,10,80,80", "10,10,81,80"), ('"10,10,81,80"', ""), ("dog", "wolf")):
        table.write_text(table.read_text().replace(*change))
        assert collect(recipe, tmp_path / "out").changed
    # A changed note needs no image; a removed box does.
    assert processed == ["00002.png"] * 2
    collect(recipe, tmp_path / "fresh")
    assert tree(tmp_path / "out", without=()) == tree(tmp_path / "fresh", without=())
    table.write_text(_BOXES)
    collect(recipe, tmp_path / "out")
    assert tree(tmp_path / "out", without=()) == old


def test_a_changed_box_behind_the_position_of_a_stream_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "_WINDOW", 1)  # every item is on record before the next one is read

    class Stream:
        pinned = True

        def items(self, skip: Any, position: Any = None) -> Any:
            for index in range(0 if position is None else position, 4):
                if index == 3 and self.breaks:
                    raise SourceError("The line went dead.")
                key = f"{index}.png"
                data = None if skip(key, "") else encode_image(checkered_image(index), "png", None)
                yield SourceItem(key, data=data, position=index + 1)

    def opened(boxes: str) -> gather.Opened:
        rows = "".join(f'{index}.png,"{boxes if index == 1 else "0,0,40,40"}"\n' for index in range(4))
        (tmp_path / "t.csv").write_text("member,boxes\n" + rows)
        steps = Steps(FilterPolicy(min_side_px=8), CropPolicy(), None)
        spec: Any = SimpleNamespace(id="stream", annotations=None)
        return gather.Opened(spec, stream, read_annotations(tmp_path / "t.csv"), steps, tmp_path / "journal.jsonl")

    stream: Any = Stream()
    stream.breaks = True
    with pytest.raises(SourceError, match="The line went dead"):
        gather.gather(opened("0,0,40,40"), tmp_path, set(), lambda _: None)
    with Journal(tmp_path / "journal.jsonl") as journal:
        begun = dict(journal.records)
    assert "1.png" in begun
    stream.breaks = False
    records = gather.gather(opened("0,0,20,20"), tmp_path, set(), lambda _: None)
    assert [str(box) for record in records.values() for box in record.boxes] == [
        "0,0,40,40", "0,0,20,20", "0,0,40,40", "0,0,40,40",
    ]  # fmt: skip
    file = records["1.png"].pieces[0].file
    assert file is not None
    assert (file.width_px, file.height_px) == (20, 20)


def test_a_box_that_leaves_its_image_names_line_and_size(image_folder: Path, tmp_path: Path) -> None:
    recipe = _boxed(image_folder, _BOXES.replace("10,10,80,80", "10,10,97,80"))
    with pytest.raises(ConfigError) as caught:
        collect(recipe, tmp_path / "out")
    assert str(caught.value) == (
        "Expected `boxes` as left,top,right,bottom in whole pixels, several separated by ';', inside the image of "
        "96 x 80 px, got '10,10,97,80' (t.csv line 4)."
    )
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_prompts_are_read_from_their_package(image_folder: Path, tmp_path: Path) -> None:
    workflow = {"nodes": [{"id": 6, "type": "CLIPTextEncode", "widgets_values": ["a red fox in snow"]}], "links": []}
    pin = write_wheel(tmp_path / "cache" / "flows-1.0-py3-none-any.whl", {"f/a.json": json.dumps(workflow).encode()})
    (tmp_path / "t.csv").write_text("member,use,reason,prompt_ref\n00000.png,keep,,f/a.json#6\n00001.png,keep,,\n")
    source = folder_sources(image_folder)[1] | {"annotations": "t.csv"}
    prompts = {"kind": "python_package", "format": "comfyui_workflow", "globs": "*.json"} | pin
    recipe = write_recipe(tmp_path / "recipe.yaml", [source], prompts=prompts)
    collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
    assert Manifest.load(tmp_path / "out").frame["prompt"].to_list() == ["a red fox in snow", None]
    shutil.rmtree(tmp_path / "cache")
    assert not collect(recipe, tmp_path / "out", cache=tmp_path / "cache").changed

    (tmp_path / "t.csv").write_text("member,prompt_ref\n00000.png,f/b.json#6\n")
    pin = write_wheel(tmp_path / "cache" / "flows-1.0-py3-none-any.whl", {"f/a.json": json.dumps(workflow).encode()})
    with pytest.raises(SourceError, match=r"Expected the member 'f/b.json' in the source of prompts, got none"):
        collect(recipe, tmp_path / "out", cache=tmp_path / "cache")
    _change(recipe, prompts=None)
    with pytest.raises(ConfigError, match="Expected the key `prompts` where a table has a `prompt_ref`"):
        collect(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"fields": {}}, "Expected `generator` from the recipe, the source or the annotation table, got none"),
        ({"licence": None}, "Expected `licence` from the recipe, the source or the annotation table, got none"),
        ({"label": None}, "Expected one label from the recipe, the source or the annotation table, got none"),
        ({"label": "real"}, "Expected generator and paradigm 'camera' exactly for real images, got label 0, generator"),
    ],
)
def test_missing_facts_are_found_before_anything_is_read(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], text: str
) -> None:
    def items(*_: Any) -> Any:
        raise AssertionError("The source was read.")

    monkeypatch.setattr(FolderSource, "items", items)
    recipe = write_recipe(tmp_path / "recipe.yaml", [folder_sources(image_folder)[1] | changes])
    with pytest.raises(ConfigError) as caught:
        collect(recipe, tmp_path / "out")
    assert text in str(caught.value)


def test_a_policy_out_of_range_is_found_before_anything_is_read(folder_recipe: Path, tmp_path: Path) -> None:
    _change(folder_recipe, align={"short_side_px": 48, "max_side_px": None, "codec": "webp", "quality": 120})
    with pytest.raises(ConfigError, match=r"Expected `quality` in \[0, 100\]"):
        collect(folder_recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()


def test_folders_of_others_are_refused_untouched(folder_recipe: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write_images(mine / "images", 1, generated=False)
    with pytest.raises(ConfigError, match=r"Expected a new or empty folder, got .*mine with 'images' in it"):
        collect(folder_recipe, mine)
    assert len(tree(mine)) == 1
    collect(folder_recipe, tmp_path / "out")
    old = tree(tmp_path / "out")
    _change(folder_recipe, name="another")
    with pytest.raises(ConfigError, match="got dataset 'synthetic' in"):
        collect(folder_recipe, tmp_path / "out")
    assert tree(tmp_path / "out") == old
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="Expected a folder for the dataset, got the file"):
        collect(folder_recipe, tmp_path / "file")


def test_two_builds_of_one_folder_exclude_each_other(folder_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with exclusive(tmp_path / "out"), pytest.raises(ConfigError, match=r"got process \d+ at work there"):
        collect(folder_recipe, tmp_path / "out")
    assert collect(folder_recipe, tmp_path / "out").n_images == 24


def test_nothing_left_is_an_error(folder_recipe: Path, tmp_path: Path) -> None:
    _change(folder_recipe, filter={"min_side_px": 5000})
    with pytest.raises(SourceError, match=r"Expected images, got none: all were refused \(\{'too_small': 24\}\)"):
        collect(folder_recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_progress_ends_at_the_number_of_items(folder_recipe: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    collect(folder_recipe, tmp_path / "out", progress=seen.append)
    last = {progress.stage: progress.done for progress in seen}
    assert last == {"collect photos": 12, "collect fakes": 12}
    assert [p.done for p in seen if p.stage == "collect fakes"] == list(range(1, 13))


def test_the_default_recipe_of_the_tests_is_complete() -> None:
    assert recipe_dict([])["align"]["codec"] == "webp"


def test_a_torn_line_of_a_journal_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.add(Record("a"), position={"index": 1})
        journal.add(Record("b"))
    whole = path.read_bytes()
    for cut in (1, 10, len(whole) - whole.index(b"\n") - 1):
        path.write_bytes(whole[:-cut])
        with Journal(path) as journal:
            assert list(journal.records) == ["a"]
            assert journal.position == {"index": 1}
            journal.add(Record("b"))
        assert path.read_bytes() == whole
