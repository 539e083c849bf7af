from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.recipes.sources import folder as module
from forgery_det.recipes.sources.base import SourceContext, SourceItem
from forgery_det.recipes.sources.folder import FolderParameters, FolderSource


def _source(folder: Path, root: str, *globs: str, out: Path | None = None) -> FolderSource:
    return FolderSource(FolderParameters(root, globs), SourceContext("s", folder, folder / "cache", out=out))


def _items(source: FolderSource) -> list[SourceItem]:
    return list(source.items(lambda _key, _stamp: False))


def test_items_are_sorted_and_relative(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.JPG", "b/1.webp", "notes.txt", "b-1.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    items = _items(_source(tmp_path, "data"))
    assert [(item.key, item.data) for item in items] == [
        (name, name.encode()) for name in ("a.JPG", "b-1.png", "b/1.webp", "b/2.png")
    ]
    assert [item.key for item in _items(_source(tmp_path, "data", "b/*", "*.txt"))] == [
        "b/1.webp",
        "b/2.png",
        "notes.txt",
    ]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "p").mkdir(parents=True)
    (tmp_path / "home" / "p" / "x.png").write_bytes(b"x")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert [item.key for item in _items(_source(tmp_path / "elsewhere", "~/p"))] == ["x.png"]


def test_a_skipped_item_is_not_read_and_a_changed_file_has_another_stamp(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    source = _source(tmp_path, ".")
    first = _items(source)[0]
    seen: list[Any] = []
    skipped = next(source.items(lambda key, stamp: bool(seen.append((key, stamp)) or True)))
    assert (skipped.data, seen) == (None, [("x.png", first.stamp)])
    path.write_bytes(b"newer")
    assert _items(source)[0].stamp != first.stamp


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "x.png").write_bytes(b"x")
    (tmp_path / "data" / "deep" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "data" / "deep" / "x.png")
    assert [item.key for item in _items(_source(tmp_path, "data"))] == ["deep/x.png", "link.png"]


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(b"12345")
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    monkeypatch.setattr(module, "MAX_ITEM_BYTES", 4)
    refusals = {item.key: item.refusal[0] for item in _items(_source(tmp_path, ".")) if item.refusal}
    assert refusals == {
        "gone.png": "unreadable",
        "pipe.png": "unreadable",
        "large.png": "too_many_bytes",
        "\\xff.png": "unreadable",
    }


def test_missing_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Expected a folder at .*nowhere, got none \(source 's': root\)"):
        _items(_source(tmp_path, "nowhere"))
    with pytest.raises(SourceError, match=r"Expected files matching \*\.xyz in"):
        _items(_source(tmp_path, ".", "*.xyz"))


def test_a_dataset_is_not_read_into_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected `--out` outside of the folders that are read"):
        _source(tmp_path, ".", out=tmp_path / "datasets" / "new")
