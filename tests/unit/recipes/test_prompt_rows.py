from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.recipes.prompt_sets import PromptContext
from forgery_det.recipes.prompting.base import PromptRow
from forgery_det.recipes.prompting.file_rows import PromptFile, PromptFileParameters
from forgery_det.recipes.prompting.hub_rows import PromptDataset, PromptDatasetParameters

ROWS = [
    {"image": "000123", "caption": "a red  fox\nin snow", "long": "A red fox stands in deep snow."},
    {"image": "000124", "caption": "a cup", "long": None},
    {"image": None, "caption": "", "long": "A cup."},
]
COLUMNS = {"prompt": "caption", "v1": "long", "content_id": "image"}


def _file_rows(path: Path, **changes: Any) -> list[PromptRow]:
    given = PromptFileParameters(**{"path": path.name, "columns": COLUMNS} | changes)
    return list(PromptFile(given, path.parent, PromptContext(path.parent, path.parent)).rows())


def _write(path: Path) -> None:
    frame = pl.DataFrame(ROWS)
    if path.suffix == ".csv":
        frame.write_csv(path)
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_parquet(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"prompts{suffix}"
    _write(path)
    rows = _file_rows(path)
    assert [(row.content_id, row.texts.get("v0"), row.texts.get("v1")) for row in rows] == [
        ("000123", "a red fox in snow", "A red fox stands in deep snow."),
        ("000124", "a cup", None),
        (None, None, "A cup."),
    ]
    assert rows[1].place == f"prompts{suffix} row 2"


def test_a_column_of_lists_gives_its_first_captions(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    pl.DataFrame([{"c": ["a fox", "a red fox", "snow"], "i": 1}, {"c": ["a cup"], "i": 2}]).write_ndjson(path)
    rows = _file_rows(path, columns={"prompt": "c", "content_id": "i"}, per_row=2)
    assert [(row.content_id, row.texts["v0"]) for row in rows] == [("1", "a fox"), ("1", "a red fox"), ("2", "a cup")]
    assert rows[1].place == "prompts.jsonl row 1, caption 2"


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    _write(path)
    with pytest.raises(
        SourceError, match=r"Unknown column 'captions' \(prompts.csv: columns\): did you mean 'caption'"
    ):
        _file_rows(path, columns={"prompt": "captions"})
    with pytest.raises(ConfigError, match="Expected `columns` to name the column of the prompt"):
        PromptFileParameters("p.csv", {"v1": "long"})
    with pytest.raises(ConfigError, match=r"Expected a file of a known format, got 'p.txt': .*\.csv"):
        PromptFileParameters("p.txt")
    with pytest.raises(ConfigError, match="Expected a file of prompts, got no file"):
        PromptFile.files(PromptFileParameters("other.csv"), tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="Expected a readable table of prompts"):
        _file_rows(path.rename(tmp_path / "broken.parquet"))


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def _dataset(folder: Path, **changes: Any) -> PromptDataset:
    given = {"dataset": "parquet", "columns": COLUMNS, "data_files": ("part-*.parquet",)} | changes
    return PromptDataset(PromptDatasetParameters(**given), folder, PromptContext(folder, folder))


@pytest.mark.usefixtures("_offline")
def test_a_dataset_is_streamed_without_its_other_columns(tmp_path: Path) -> None:
    rows = [row | {"picture": b"large"} for row in ROWS]
    for index, row in enumerate(rows):
        pl.DataFrame(
            [row], infer_schema_length=None, schema_overrides={"long": pl.String, "image": pl.String}
        ).write_parquet(tmp_path / f"part-{index}.parquet")
    found = list(_dataset(tmp_path).rows())
    assert [row.texts.get("v0") for row in found] == ["a red fox in snow", "a cup", None]
    assert [row.content_id for row in found] == ["000123", "000124", None]
    assert found[1].place == "parquet train/00000001"
    assert len(list(_dataset(tmp_path, max_rows=2).rows())) == 2
    (last,) = _dataset(tmp_path, first_row=1, max_rows=1).rows()
    assert (last.texts["v0"], last.place) == ("a cup", "parquet train/00000001")
    with pytest.raises(SourceError, match=r"Unknown column 'caption2' \(parquet: columns\): did you mean 'caption'"):
        list(_dataset(tmp_path, columns={"prompt": "caption2"}).rows())
    with pytest.raises(SourceError, match="Expected to stream 'parquet', got: "):
        list(_dataset(tmp_path, data_files=("other-*.parquet",)).rows())


def test_rows_of_a_pinned_commit_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def streamed(self: PromptDataset, start: int) -> Any:
        opened.append(start)
        yield from ROWS[start:]

    monkeypatch.setattr(PromptDataset, "_streamed", streamed)
    pinned = {"dataset": "owner/name", "data_files": (), "revision": "0" * 40}
    partly = _dataset(tmp_path, **pinned).rows()
    assert next(partly).texts["v0"] == "a red fox in snow"
    partly.close()  # as a limit does
    assert opened == [0]
    assert len(list(_dataset(tmp_path, **pinned).rows())) == 3
    assert opened == [0, 1]
    assert len(list(_dataset(tmp_path, **pinned).rows())) == 3
    assert opened == [0, 1]
    list(_dataset(tmp_path, **pinned | {"revision": "1" * 40}).rows())
    assert opened == [0, 1, 0]


def test_a_hub_dataset_needs_a_commit() -> None:
    with pytest.raises(ConfigError, match="Expected `revision` as a commit of 40 hexadecimal digits, got 'main'"):
        PromptDatasetParameters("owner/name", COLUMNS, revision="main")
    with pytest.raises(ConfigError, match="Expected `first_row` of at least 0, got -1"):
        PromptDatasetParameters("owner/name", COLUMNS, revision="0" * 40, first_row=-1)
