from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from forgery_det.recipes.sources.base import SourceContext, SourceItem
from forgery_det.recipes.sources.manifest import ManifestParameters, ManifestSource
from synth.images import folder_sources, write_images, write_recipe


@pytest.fixture
def dataset(folder_recipe: Path, tmp_path: Path) -> Path:
    return collect(folder_recipe, tmp_path / "first").dataset


def _items(dataset: Path, *, keep_split: bool = False) -> list[SourceItem]:
    source = ManifestSource(ManifestParameters(str(dataset), keep_split), SourceContext("s", dataset, dataset))
    return list(source.items(lambda _key, _stamp: False))


def test_rows_keep_their_fields(dataset: Path) -> None:
    rows = {row["image_id"]: row for row in Manifest.load(dataset).frame.iter_rows(named=True)}
    items = _items(dataset)
    assert [item.key for item in items] == sorted(rows)
    for item in items:
        row = rows[item.key]
        assert item.data == (dataset / row["path"]).read_bytes()
        assert item.fields["label"] == row["label"]
        assert item.fields["source_id"] == row["source_id"]
        assert "split" not in item.fields
    assert any(item.fields.get("release_date") == date(2020, 1, 31) for item in items)
    assert {item.key: item.fields["split"] for item in _items(dataset, keep_split=True)} == {
        name: row["split"] for name, row in rows.items()
    }


def test_changed_and_missing_files_are_refused(dataset: Path) -> None:
    paths = Manifest.load(dataset).frame.sort("image_id")["path"]
    (dataset / paths[0]).write_bytes(b"other")
    (dataset / paths[1]).unlink()
    first, second, third = _items(dataset)[:3]
    assert first.refusal == ("changed_bytes", f"Expected the bytes of `image_id` in {paths[0]}.")
    assert second.refusal is not None
    assert second.refusal[0] == "unreadable"
    assert third.refusal is None


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Expected a dataset folder with manifest.parquet.*\(source 's': dataset\)"):
        _items(tmp_path)


def test_joining_keeps_bytes_labels_and_splits_and_drops_copies(dataset: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "more" / "real", 4, generated=False, seed=9)
    sources = [
        {"id": "old", "kind": "manifest", "dataset": str(dataset), "keep_split": True},
        {"id": "again", "kind": "manifest", "dataset": str(dataset)},
        folder_sources(tmp_path / "more")[0],
    ]
    recipe = write_recipe(tmp_path / "joined.yaml", sources, name="joined", align=None)
    summary = collect(recipe, tmp_path / "joined")
    before, after = Manifest.load(dataset).frame, Manifest.load(tmp_path / "joined").frame
    same = ["image_id", "label", "generator", "source", "source_id", "release_date", "licence"]
    joined = after.filter(pl.col("source_id").is_in(before["source_id"].implode()))
    assert joined.sort("image_id").select(same).equals(before.sort("image_id").select(same))
    assert summary.refused == {"duplicate_exact": before.height}
    assert after.height == before.height + 4
    assert set(after["recipe"]) == {"joined"}


def test_a_label_that_contradicts_the_recipe_is_an_error(dataset: Path, tmp_path: Path) -> None:
    sources = [{"id": "old", "kind": "manifest", "dataset": str(dataset), "label": "real"}]
    recipe = write_recipe(tmp_path / "joined.yaml", sources, name="joined")
    with pytest.raises(ConfigError, match="got real in one place and generated in another"):
        collect(recipe, tmp_path / "joined")
