from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.annotations import read_annotations
from forgery_det.recipes.boxes import Box
from forgery_det.recipes.load import list_recipes, load_recipe
from forgery_det.recipes.recipe import AlignPolicy, CropPolicy, FilterPolicy, SplitRule
from synth.images import folder_sources, recipe_dict, write_recipe


def _write(folder: Path, **changes: Any) -> Path:
    sources = changes.pop("sources", folder_sources(folder))
    return write_recipe(folder / "recipe.yaml", sources, **changes)


def _change_source(folder: Path, index: int = 1, **changes: Any) -> Path:
    sources = folder_sources(folder)
    sources[index] = {key: value for key, value in (sources[index] | changes).items() if value is not ...}
    return write_recipe(folder / "recipe.yaml", sources)


def test_values_arrive_typed(tmp_path: Path) -> None:
    rules = [{"split": "test", "paradigm": "mllm", "released_from": date(2025, 1, 1)}]
    split = {"fractions": {"train": 1}, "salt": "s", "rules": rules}
    path = _write(tmp_path, split=split, filter={"max_aspect": 2}, align=None, seed=7)
    recipe = load_recipe(path)
    assert recipe.split.rules == (SplitRule("test", paradigm=("mllm",), released_from=date(2025, 1, 1)),)
    assert recipe.split.fractions == {"train": 1.0}
    assert recipe.filter == FilterPolicy(max_aspect=2.0)
    assert recipe.align is None
    assert recipe.seed == 7
    fake = recipe.sources[1]
    assert (fake.label, fake.crops, fake.folder) == (1, CropPolicy(), tmp_path)
    assert fake.fields["release_date"] == date(2020, 1, 31)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"algin": {}}, "Unknown key 'algin' (recipe.yaml): did you mean 'align'?"),
        ({"align": {"short_side_px": 64, "max_side": 3}}, "Unknown key 'max_side' (recipe.yaml.align): did you mean"),
        (
            {"align": {"short_side_px": "64", "max_side_px": None}},
            "Expected an integer, got '64' (recipe.yaml.align.short",
        ),
        ({"align": {"max_side_px": 64}}, "Expected the key 'short_side_px', got none (recipe.yaml.align)."),
        ({"seed": True}, "Expected an integer, got True (recipe.yaml.seed)."),
        ({"commercial_use": "maybe"}, "Unknown commercial_use 'maybe'"),
        ({"split": {"fractions": [1], "salt": "s"}}, "Expected a mapping of keys to values, got [1]"),
        ({"split": {"fractions": {}, "salt": 3}}, "Expected a text, got the number 3: put it in quotes"),
        ({"sources": []}, "Expected at least one source"),
        ({"sources": {}}, "Expected a list, got {}"),
        ({"sources": ["x"]}, "Expected a mapping with the key 'kind', got 'x' (recipe.yaml: sources[0])."),
        ({"prompts": {"kind": "folder", "root": "x", "format": "comfy_workflow"}}, "did you mean 'comfyui_workflow'?"),
        ({"extends": "nowhere.yaml"}, "Expected the path of a recipe file, got 'nowhere.yaml' (recipe.yaml.extends)."),
        ({"extends": "recipe.yaml"}, "got a circle"),
    ],
)
def test_mistakes_name_the_place(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(_write(tmp_path, **changes))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "foldr"}, "Unknown source kind 'foldr' (recipe.yaml: sources[1].kind): did you mean 'folder'?"),
        ({"rot": "x"}, "Unknown key 'rot' (recipe.yaml: sources[1]): did you mean 'root'?"),
        ({"root": ...}, "Expected the key 'root', got none (recipe.yaml: sources[1])."),
        ({"label": 2}, "Expected `label` real (0) or generated (1), got 2 (recipe.yaml: sources[1].label)."),
        ({"label": True}, "Expected `label` real (0) or generated (1), got True"),
        (
            {"fields": {"paradigm": "difusion"}},
            "Unknown paradigm 'difusion' (recipe.yaml: sources[1].fields): did you mean",
        ),
        ({"fields": {"label": "real"}}, "Expected `label` as a key of the source, got it under `fields`"),
        ({"fields": {"colour": "red"}}, "Unknown field 'colour'"),
        ({"fields": {"release_date": "2020"}}, "Expected `release_date` as YYYY-MM-DD, got '2020'"),
        ({"annotations": "none.csv"}, "Expected an annotation table, got no file"),
        ({"id": "photos"}, "each `id` once, got ['photos', 'photos']"),
        (
            {
                "kind": "python_package",
                "root": ...,
                "package": "a",
                "version": "1",
                "file": "a.zip",
                "sha256": "0" * 64,
            },
            "Expected the file name of a wheel, got 'a.zip' (recipe.yaml: sources[1]).",
        ),
        (
            {"kind": "debian_package", "root": ..., "package": "a", "version": "1", "file": "a.deb", "sha256": "0"},
            "Expected `sha256` with 64 lower-case hexadecimal digits, got '0' for a.deb (recipe.yaml: sources[1]).",
        ),
        (
            {"kind": "huggingface", "root": ..., "dataset": "a/b", "columns": {"image": "img"}, "revision": "main"},
            "Expected `revision` as a commit of 40 hexadecimal digits, got 'main' (recipe.yaml: sources[1]).",
        ),
        (
            {"kind": "huggingface", "root": ..., "dataset": "a/b", "columns": {"img": "img"}},
            "Expected `columns` to name the column of the image",
        ),
    ],
)
def test_mistakes_in_a_source_name_the_place(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(_change_source(tmp_path, **changes))
    assert text in str(caught.value)


def test_a_key_written_twice_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path)
    path.write_text(path.read_text() + "\nname: again\n")
    with pytest.raises(ConfigError, match=r"Expected each key once, got 'name' again at line \d+ \(.*recipe.yaml\)"):
        load_recipe(path)


def test_yaml_objects_are_not_built(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="Expected a readable YAML file"):
        load_recipe(path)


def test_unknown_name_offers_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'wild_mini'"):
        load_recipe("wild_mni")


def test_the_digest_follows_content_and_tables_but_not_the_place(tmp_path: Path) -> None:
    def digest(folder: str, table: str, **changes: Any) -> str:
        home = tmp_path / folder
        home.mkdir()
        (home / "t.csv").write_text(table)
        source = folder_sources(Path("relative"))[0] | {"annotations": "t.csv"}
        return load_recipe(write_recipe(home / "recipe.yaml", [source], **changes)).digest

    first = digest("a", "member\nx.png\n")
    assert digest("b", "member\nx.png\n") == first
    assert digest("c", "member\ny.png\n") != first
    assert digest("d", "member\nx.png\n", seed=1) != first


def test_extends_adds_sources_and_replaces_keys(tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_recipe(base / "recipe.yaml", folder_sources(Path("data"))[:1])
    (tmp_path / "more").mkdir()
    child = {"extends": "../base/recipe.yaml", "name": "more", "sources": folder_sources(Path("data"))[1:]}
    (tmp_path / "more" / "recipe.yaml").write_text(yaml.safe_dump(child))
    recipe = load_recipe(tmp_path / "more")
    assert recipe.name == "more"
    assert [source.id for source in recipe.sources] == ["photos", "fakes"]
    assert [source.folder for source in recipe.sources] == [base, tmp_path / "more"]
    assert recipe.align == AlignPolicy(48, 64)


def test_mistakes_in_an_extended_recipe_name_its_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe_dict([{"kind": "folder", "id": "x", "rot": "y"}])))
    (tmp_path / "recipe.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(ConfigError, match=r"Unknown key 'rot' \(base.yaml: sources\[0\]\)"):
        load_recipe(tmp_path)


def test_shipped_recipes_load_and_every_kept_row_is_complete() -> None:
    for recipe in list_recipes():
        assert recipe.description
        for source in recipe.sources:
            if source.annotations is not None:
                assert read_annotations(source.annotations, source.parameters.package)


def test_template_recipe_loads() -> None:
    recipe = load_recipe(Path(__file__).parents[3] / "data_recipes" / "_template")
    assert recipe.align is not None


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("key\nx\n", "Expected the column 'member', got ['key']"),
        ("member,use\nx,kep\n", "Unknown use 'kep' (t.csv line 2): did you mean 'keep'?"),
        ("member\nx\nx\n", "Expected each member once, got 'x' again (t.csv line 3)."),
        ("member,generater\nx,y\n", "Unknown column 'generater', too near to 'generator' to be a note"),
        ("member,note\nx\n", "Expected 2 cells, got another number (t.csv line 2)."),
        ("member,note\nx,a,b\n", "Expected 2 cells, got another number (t.csv line 2)."),
        ("member,width_px\nx,wide\n", "Expected `width_px` as a whole number, got 'wide' (t.csv line 2)."),
        ("member,paradigm\nx,gam\n", "Unknown paradigm 'gam' (t.csv line 2): did you mean 'gan'?"),
        ("member,use\n,keep\n", "Expected a value in 'member', got none (t.csv line 2)."),
        ("member,boxes\nx,1-2-3-4\n", "separated by ';', got '1-2-3-4' (t.csv line 2)."),
        ("member,use,boxes\nx,drop,9\n", "separated by ';', got '9' (t.csv line 2)."),
        ("member,boxs\nx,9\n", "Unknown column 'boxs', too near to 'boxes' to be a note"),
        ("member,package\nx,other\n", "of package 'mine'; the table names other, got none"),
    ],
)
def test_mistakes_in_a_table_name_the_line(tmp_path: Path, table: str, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(table)
    with pytest.raises(ConfigError) as caught:
        read_annotations(path, "mine")
    assert text in str(caught.value)


def test_table_cells_become_fields_facts_and_notes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "package,member,use,reason,generator,release_date,width_px,prompt_ref,subject,boxes\n"
        'mine,a.png,keep,,gen-1,2025-01-02,640,w.json#3,cat,"0,0,10,20;5,0,9,9"\n'
        "mine,b.png,drop,blurred,,,,,,\n"
        "other,a.png,keep,,,,,,,\n"
    )
    table = read_annotations(path, "mine")
    assert list(table) == ["a.png", "b.png"]
    assert table["a.png"].fields == {"generator": "gen-1", "release_date": date(2025, 1, 2)}
    assert (table["a.png"].facts, table["a.png"].prompt_ref) == ({"width_px": 640}, "w.json#3")
    assert table["a.png"].notes == {"subject": "cat"}
    assert table["a.png"].boxes == (Box(0, 0, 10, 20), Box(5, 0, 9, 9))
    assert (table["b.png"].boxes, table["b.png"].where) == ((), "t.csv line 3")
    assert (table["a.png"].drop_reason, table["b.png"].drop_reason) == (None, "blurred")
