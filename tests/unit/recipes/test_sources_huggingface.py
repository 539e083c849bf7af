from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.errors import ConfigError, SourceError
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


def test_a_source_may_start_behind_the_rows_of_another(tmp_path: Path) -> None:
    _write(tmp_path)
    first, second = _source(tmp_path, max_items=3), _source(tmp_path, first_item=3, max_items=3)
    keys = [[item.key for item in _items(source)] for source in (first, second)]
    assert keys == [[f"train/{i:08d}" for i in (0, 1, 2)], [f"train/{i:08d}" for i in (3, 4, 5)]]
    assert first.identity() != second.identity()
    assert second.outlook().more == 3


def test_columns_may_be_translated_and_a_photograph_has_no_generator(tmp_path: Path) -> None:
    rows = [
        {"img": b"a", "number": 7, "fake": 1, "model": "sd-x", "kind": "LatDiff"},
        {"img": b"b", "number": 8, "fake": 1, "model": "big", "kind": "GAN"},
        {"img": b"c", "number": 9, "fake": 0, "model": "real", "kind": "real"},
        {"img": b"d", "number": 10, "fake": 1, "model": "hidden", "kind": "Commercial"},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "part-00.parquet")
    columns = {"image": "img", "content_id": "number", "label": "fake", "generator": "model", "paradigm": "kind"}
    values = {"generator": {"hidden": None}, "paradigm": {"LatDiff": "diffusion", "GAN": "gan", "*": "unknown"}}
    items = _items(_source(tmp_path, columns=columns, values=values))
    assert [item.data for item in items] == [b"a", b"b", b"c", b"d"], "a column of plain bytes is a column of images"
    assert [dict(item.fields) for item in items] == [
        {"content_id": "7", "label": 1, "generator": "sd-x", "paradigm": "diffusion"},
        {"content_id": "8", "label": 1, "generator": "big", "paradigm": "gan"},
        {"content_id": "9", "label": 0},
        {"content_id": "10", "label": 1, "paradigm": "unknown"},
    ]
    with pytest.raises(ConfigError, match="Unknown field 'paradigms' in `values`"):
        _source(tmp_path, values={"paradigms": {}})
