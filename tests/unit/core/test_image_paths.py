from __future__ import annotations

import glob
import itertools
import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forgery_det.core.image_paths import expand_glob, expand_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Red and black squares, broken files, a text, a hidden file, odd names."""
    for name, red in (("a.png", 255), ("sub/B.JPG", 0), ("sub/deep/c.webp", 140), ("d [1].png", 255)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[..., 0] = red
        Image.fromarray(pixels).save(path, {".png": "png", ".JPG": "jpeg", ".webp": "webp"}[path.suffix])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "e.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folders_give_images_and_count_the_rest(folder: Path) -> None:
    skipped: list[str] = []
    found = list(expand_paths([folder], skipped.append))
    relative = [os.path.relpath(path, folder) for path in found]
    assert relative == ["a.png", "broken.png", "d [1].png", "sub/B.JPG", "sub/deep/c.webp"]
    assert skipped == [f"{folder}/notes.txt"]


def test_globs_files_and_missing_names(folder: Path) -> None:
    def expand(*arguments: str) -> list[str]:
        return [os.path.relpath(p, folder) for p in expand_paths(str(folder / a) for a in arguments)]

    assert expand("*.png") == ["a.png", "broken.png", "d [1].png"]
    assert expand("**/*.webp") == ["sub/deep/c.webp"]
    assert expand("s*") == ["sub/B.JPG", "sub/deep/c.webp"]  # a folder that a glob matches is entered
    assert expand("d [1].png") == ["d [1].png"]  # a file of that name, not a glob
    assert expand("notes.txt") == ["notes.txt"]  # named, so it is tried
    assert expand("*.xyz", "gone.png", "empty") == ["*.xyz", "gone.png", "empty"]  # will be rows with errors
    assert expand("a.png", "a.png") == ["a.png", "a.png"]


def test_links_to_folders_are_not_followed(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder, target_is_directory=True)
    assert len(list(expand_paths([folder]))) == 5


PATTERNS = [
    "*",
    "a*",
    "**",
    "**/*.png",
    "*/*.png",
    "[ab]*/**/x?.png",
    "a/**",
    "**/b/*",
    "a/**/**/*.png",
    ".h*/*",
    "*.txt/*",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("absolute", [True, False])
def test_globs_match_what_the_library_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, absolute: bool
) -> None:
    rng = random.Random(7)
    for parts in itertools.product(["a", "b", ".h", "c.txt"], ["b", "ab", ".i"]):
        for name in rng.sample(["x1.png", "x2.png", "y.txt", ".x3.png"], 2):
            path = tmp_path.joinpath(*parts, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "top.png").touch()
    monkeypatch.chdir(tmp_path)
    asked = str(tmp_path / pattern) if absolute else pattern
    found = list(expand_glob(asked))
    reference = glob.glob(asked, recursive=True)  # noqa: PTH207 - the reference
    if pattern in ("**", "a/**"):
        # A trailing `**` gives files only: the folders of the library's answer would give each file many times.
        reference = [path for path in reference if os.path.isfile(path)]  # noqa: PTH113 - the reference
    assert sorted(found) == sorted(set(reference))
    assert found == list(expand_glob(asked))


def test_a_long_tree_takes_no_more_memory_than_a_folder(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / f"{number:03d}"
        folder.mkdir()
        for name in range(50):
            (folder / f"{name:03d}-{'n' * 150}.jpg").touch()
    for argument in (str(tmp_path), str(tmp_path / "*/*.jpg")):
        tracemalloc.start()
        assert sum(1 for _ in expand_paths([argument])) == 2000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000  # all 2,000 names are more than 400,000 bytes
