from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ManifestError
from forgery_det.core.manifest import COLUMNS, SCHEMA, Manifest


def row(index: int = 0, **changes: Any) -> dict[str, Any]:
    image_id = hashlib.sha256(str(index).encode()).hexdigest()
    return {
        "image_id": image_id,
        "path": f"images/{image_id[:2]}/{image_id}.webp",
        "label": 1,
        "generator": "flux-1-dev",
        "paradigm": "diffusion",
        "decoder": "vae",
        "source": "synthetic",
        "source_id": f"scene:{index}",
        "width_px": 64,
        "height_px": 48,
        "codec": "webp",
        "licence": "CC0-1.0",
        "split": "train",
        "recipe": "synthetic",
        **changes,
    }


def test_round_trip_keeps_values_types_and_order(tmp_path: Path) -> None:
    rows = [
        row(0, prompt="a \N{SNOWMAN}, drawn", prompt_words=3, release_date=date(2024, 8, 1)),
        row(1, jpeg_quality=90),
    ]
    written = Manifest.from_rows(rows, tmp_path)
    path = written.write()
    read = Manifest.load(tmp_path)
    assert path == tmp_path / "manifest.parquet"
    assert read.frame.equals(written.frame)
    assert read.frame.columns == list(SCHEMA)
    assert read.digest() == written.digest()
    assert Manifest.load(path).frame.equals(read.frame)


def test_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [row(index) for index in range(50)]
    first = Manifest.from_rows(rows, tmp_path / "a").write().read_bytes()
    second = Manifest.from_rows(rows, tmp_path / "b").write().read_bytes()
    assert first == second


def test_digest_changes_with_any_value() -> None:
    rows = [row(0), row(1)]
    digests = {Manifest.from_rows(rows, Path()).digest(), Manifest.from_rows(rows[::-1], Path()).digest()}
    digests.add(Manifest.from_rows([row(0), row(1, split="val")], Path()).digest())
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"label": 2}, r"Expected `label` in \[0, 1\], got 2 \(row 0"),
        ({"label": -1}, r"Expected `label` in \[0, 1\], got -1"),
        ({"label": "1"}, r"Expected `label` of type Int64, got '1' of type str \(row 0\)"),
        ({"label": True}, r"Expected `label` of type Int64, got True of type bool"),
        ({"width_px": 3.5}, r"Expected `width_px` of type Int64, got 3.5 of type float"),
        ({"release_date": "2024-01-01"}, r"Expected `release_date` of type Date, got '2024-01-01' of type str"),
        ({"jpeg_quality": 120}, r"Expected `jpeg_quality` in \[1, 100\], got 120"),
        ({"jpeg_quality": 0}, r"Expected `jpeg_quality` in \[1, 100\], got 0"),
        ({"height_px": 0}, r"Expected `height_px` at least 1, got 0"),
        ({"paradigm": "difusion"}, r"Unknown paradigm 'difusion' \(manifest\): did you mean 'diffusion'\?"),
        ({"split": "valid"}, r"Unknown split 'valid' \(manifest\): did you mean 'val'\?"),
        ({"decoder": "VAE"}, r"Unknown decoder 'VAE'"),
        ({"prompt_level": "v9"}, r"Unknown prompt_level 'v9'"),
        (
            {"path": "/etc/passwd"},
            r"Expected `path` relative to the dataset folder, got absolute '/etc/passwd' \(row 0",
        ),
        ({"path": "C:\\images\\a.png"}, r"Expected `path` relative to the dataset folder"),
        (
            {"path": "images/../../secret.png"},
            r"Expected `path` inside the dataset folder, got 'images/../../secret.png'",
        ),
        ({"path": "images\\..\\..\\secret.png"}, r"Expected `path` inside the dataset folder"),
        ({"path": ""}, r"Expected `path` inside the dataset folder, got ''"),
        ({"generator": None}, r"Expected a value in `generator`, got null \(row 0"),
        ({"image_id": "abc"}, r"Expected `image_id` to be 64 hexadecimal digits, got 'abc'"),
        ({"labl": 1}, r"Unknown manifest column 'labl' \(row 0\): did you mean 'label'\?"),
        ({"label": 0}, r"Expected label 0 exactly where paradigm is 'camera', got label 0 with paradigm 'diffusion'"),
    ],
)
def test_each_broken_rule_is_its_own_error(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ManifestError, match=text):
        Manifest.from_rows([row(0, **changes)], Path())


def test_row_number_in_the_error_is_that_of_the_bad_row() -> None:
    with pytest.raises(ManifestError, match=r"got 101 \(row 2"):
        Manifest.from_rows([row(0), row(1, jpeg_quality=None), row(2, jpeg_quality=101)], Path())


def test_missing_value_and_missing_column_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none called \['split'\]"):
        Manifest.from_rows([{k: v for k, v in row(0).items() if k != "split"}], tmp_path)
    frame = Manifest.from_rows([row(0)], tmp_path).frame
    with pytest.raises(ManifestError, match=r"none called \['phash'\]"):
        Manifest(frame.drop("phash"), tmp_path).validate()
    with pytest.raises(ManifestError, match="Unknown manifest column 'extra'"):
        Manifest(frame.with_columns(extra=pl.lit(1)), tmp_path).validate()
    with pytest.raises(ManifestError, match=r"Expected `label` of type Int64, got Int32"):
        Manifest(frame.with_columns(pl.col("label").cast(pl.Int32)), tmp_path).validate()


def test_an_image_may_appear_once() -> None:
    with pytest.raises(ManifestError, match=r"Expected every `image_id` once, got [0-9a-f]{64} 2 times"):
        Manifest.from_rows([row(0), row(0)], Path())


def test_absent_or_foreign_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="Build one with `forgery-det collect RECIPE --out DIR`"):
        Manifest.load(tmp_path / "nowhere")
    (tmp_path / "manifest.parquet").write_text("not parquet")
    with pytest.raises(ManifestError, match="Expected a Parquet file, got something else"):
        Manifest.load(tmp_path)


def test_invalid_manifest_is_not_written(tmp_path: Path) -> None:
    frame = Manifest.from_rows([row(0)], tmp_path).frame.with_columns(label=pl.lit(7, dtype=pl.Int64))
    with pytest.raises(ManifestError):
        Manifest(frame, tmp_path).write()
    assert list(tmp_path.iterdir()) == []


def test_subset_and_columns_of_the_design() -> None:
    manifest = Manifest.from_rows([row(0), row(1, split="test")], Path("root"))
    assert len(manifest.subset(pl.col("split") == "test")) == 1
    assert manifest.image_file("images/a.webp") == Path("root/images/a.webp")
    design = (Path(__file__).parents[3] / "docs/design.md").read_text(encoding="utf-8")
    listed = design.split("Manifest columns:")[1].split("**Run folder**")[0]
    assert [name for name in COLUMNS if f"`{name}`" not in listed] == []


def test_a_dataset_is_called_by_its_recipe_or_by_its_folder(tmp_path: Path) -> None:
    one = Manifest.from_rows([row(0), row(1)], tmp_path / "folder")
    assert one.name == row()["recipe"]
    two = Manifest(one.frame.with_columns(recipe=pl.Series(["x", "y"])), tmp_path / "folder")
    assert two.name == "folder"
