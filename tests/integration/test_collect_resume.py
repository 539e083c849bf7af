"""`kill -9` at any moment of a collect, then the same command: the same dataset, byte for byte."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.image_io import encode_image
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.build import collect
from synth.images import checkered_image, folder_sources, tree, write_images, write_recipe, write_wheel

# The child slows each image down, so that kills fall into the middle of the work on a machine of any speed.
_CHILD = """
import sys, time
from pathlib import Path
from forgery_det.recipes import gather
from forgery_det.recipes.build import collect
process = gather.process
def slow(*args):
    time.sleep(0.01)
    return process(*args)
gather.process = slow
print("started", flush=True)
collect(sys.argv[1], Path(sys.argv[2]), cache=Path(sys.argv[3]))
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Forty photographs in a folder and forty generated images, half of them boxed, in a wheel in the cache."""
    write_images(tmp_path / "images" / "real", 40, generated=False)
    members = {f"p/{i:03d}.png": encode_image(checkered_image(i), "png", None) for i in range(40)}
    members["p/broken.png"] = b"broken"
    pin: dict[str, Any] = write_wheel(tmp_path / "cache" / "fakes-1.0-py3-none-any.whl", members)
    photos, fakes = folder_sources(tmp_path / "images")
    del fakes["root"]
    # Boxes as low as they are wide enough, so that all stored images keep one height.
    boxes = {member: '"0,0,80,64;0,10,90,80"' if index % 2 else "" for index, member in enumerate(members)}
    table = "member,boxes\n" + "".join(f"{member},{cell}\n" for member, cell in boxes.items())
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "t.csv").write_text(table)
    fakes |= {"kind": "python_package", "annotations": "t.csv"} | pin
    sources = [photos | {"crops": {"count": 2, "size_px": 50}}, fakes]
    return write_recipe(tmp_path / "recipe" / "recipe.yaml", sources)


def _start(recipe: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _CHILD, str(recipe), str(out), str(cache)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


def test_killed_and_started_again_ends_in_the_same_bytes(recipe: Path, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "killed"
    collect(recipe, tmp_path / "whole", cache=cache)
    rng = random.Random(7)
    kills, seen = 0, set()
    for _ in range(4):
        process = _start(recipe, out, cache)
        time.sleep(rng.uniform(0.05, 0.35))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()  # type: ignore[union-attr]
        seen.add(len(list((out / "images").rglob("*.webp"))))
    # The test means something only if kills fell into the middle of the work.
    assert kills >= 2
    assert len(seen) >= 2
    collect(recipe, out, cache=cache)
    assert tree(out, without=()) == tree(tmp_path / "whole", without=())
    assert Manifest.load(out).frame.height > 100


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("recipe.yaml", "short_side_px: 48", "short_side_px: 40"),
        pytest.param("t.csv", "0,0,80,64", "0,0,79,64", marks=pytest.mark.slow),
    ],
)
def test_a_kill_while_the_recipe_changes_never_mixes(
    recipe: Path, tmp_path: Path, file: str, before: str, after: str
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    collect(recipe, out, cache=cache)
    text = (recipe.parent / file).read_text()
    assert before in text
    (recipe.parent / file).write_text(text.replace(before, after))
    process = _start(recipe, out, cache)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    # Old and whole, or new and whole: what the manifest names is there, in one size.
    frame = Manifest.load(out).frame
    assert frame["height_px"].n_unique() == 1
    assert all((out / path).is_file() for path in frame["path"])
    collect(recipe, out, cache=cache)
    collect(recipe, tmp_path / "fresh", cache=cache)
    assert tree(out, without=()) == tree(tmp_path / "fresh", without=())
