from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import SourceError
from forgery_det.recipes.sources import huggingface
from forgery_det.recipes.sources.base import SourceContext, SourceItem
from forgery_det.recipes.sources.huggingface import HuggingFaceParameters, HuggingFaceSource

pytest.importorskip("datasets", reason="the extra `hub` is not installed")


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def _write(folder: Path, count: int = 7, per_file: int = 3) -> None:
    rows = [
        {
            "img": {"bytes": b"bytes %d" % i, "path": f"{i}.png"},
            "text": f"caption {i}" if i % 2 else None,
            "fake": i % 2,
        }
        for i in range(count)
    ]
    for start in range(0, count, per_file):
        pl.DataFrame(rows[start : start + per_file]).write_parquet(folder / f"part-{start:02d}.parquet")


def _source(folder: Path, **changes: Any) -> HuggingFaceSource:
    given = {
        "dataset": "parquet",
        "columns": {"image": "img", "prompt": "text", "label": "fake"},
        "labels": {"0": "real", "1": "generated"},
        "data_files": ("part-*.parquet",),
    } | changes
    return HuggingFaceSource(HuggingFaceParameters(**given), SourceContext("s", folder, folder))


def _items(source: HuggingFaceSource, position: Any = None) -> list[SourceItem]:
    return list(source.items(lambda _key, _stamp: False, position))


def test_rows_become_items_with_the_original_bytes_and_mapped_fields(tmp_path: Path) -> None:
    _write(tmp_path)
    items = _items(_source(tmp_path))
    assert [item.key for item in items] == [f"train/{i:08d}" for i in range(7)]
    assert [item.data for item in items] == [b"bytes %d" % i for i in range(7)]
    assert items[0].fields == {"label": 0}
    assert items[3].fields == {"label": 1, "prompt": "caption 3"}
    assert len(_items(_source(tmp_path, max_items=2))) == 2


def test_a_noted_position_goes_on_after_its_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "_POSITION_EVERY", 2)
    _write(tmp_path)
    items = _items(_source(tmp_path))
    noted = {item.key: item.position for item in items if item.position is not None}
    assert list(noted) == ["train/00000001", "train/00000003", "train/00000005"]
    rest = _items(_source(tmp_path), noted["train/00000003"])
    assert [(item.key, item.data) for item in rest] == [(item.key, item.data) for item in items[4:]]


def test_image_folders_are_read_by_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG raw bytes")
    source = _source(tmp_path, dataset="imagefolder", data_files=("*.png",), columns={"image": "image"}, labels={})
    assert [item.data for item in _items(source)] == [b"\x89PNG raw bytes"]


def test_a_label_without_meaning_is_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    items = _items(_source(tmp_path, labels={"0": "real"}))
    assert items[1].refusal == (
        "unreadable",
        "Expected a value of `labels`, got 1 (source 's', column 'fake').",
    )


def test_unknown_columns_and_missing_files_are_errors(tmp_path: Path) -> None:
    _write(tmp_path)
    with pytest.raises(SourceError, match=r"Unknown column 'image' \(source 's': columns\): did you mean 'img'"):
        _items(_source(tmp_path, columns={"image": "image"}))
    with pytest.raises(SourceError, match="Expected to stream 'parquet', got: "):
        _items(_source(tmp_path, data_files=("other-*.parquet",)))


def test_the_identity_follows_the_local_files(tmp_path: Path) -> None:
    _write(tmp_path)
    before = _source(tmp_path).identity()
    assert _source(tmp_path).identity() == before
    _write(tmp_path, count=8)
    assert _source(tmp_path).identity() != before
    assert not _source(tmp_path).pinned
    assert _source(tmp_path, data_files=(), revision="0" * 40).pinned


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SourceError, match=r"install `forgery-det\[hub\]`"):
        _items(_source(tmp_path))
