"""Shards: the same images in tar files, deterministic, resumable, readable by us and by webdataset."""

from __future__ import annotations

import gc
import json
import shutil
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import webdataset

from forgery_det.audits import audit
from forgery_det.cli import main
from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_file
from forgery_det.core.manifest import Manifest
from forgery_det.core.stored import container, read_stored, stored_size
from forgery_det.data.batches import iterate_batches
from forgery_det.recipes import finish, shards
from forgery_det.recipes.build import collect
from forgery_det.transforms.preprocess import Preprocess
from synth.images import folder_sources, tree, write_images, write_recipe

SMALL_MB = 0.012
"""So small that the images need several shards."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "real", 6, generated=False, width_px=64)
    write_images(root / "fake", 6, generated=True, width_px=64, codec="png")
    return write_recipe(root / "recipe.yaml", folder_sources(root))


@pytest.fixture(scope="module")
def files(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as files; tests leave it as it is."""
    return collect(recipe, tmp_path_factory.mktemp("files") / "out").dataset


@pytest.fixture(scope="module")
def sharded(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as shards; tests leave it as it is."""
    return collect(recipe, tmp_path_factory.mktemp("sharded") / "out", shard_mb=SMALL_MB).dataset


@contextmanager
def files_left_open() -> Iterator[None]:
    """webdataset leaves its streams to the garbage collector, which warns of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def test_a_sharded_dataset_holds_the_same_images_as_files_would(sharded: Path, files: Path) -> None:
    manifest = Manifest.load(sharded)
    assert manifest.frame.drop("path").equals(Manifest.load(files).frame.drop("path"))
    for image_id, path in manifest.frame.select("image_id", "path").iter_rows():
        assert sha256_bytes(read_stored(manifest.image_file(path))) == image_id
    assert not (sharded / "images").exists()
    shard_files = sorted((sharded / "shards").rglob("*.tar"))
    assert len(shard_files) > 3
    assert max(path.stat().st_size for path in shard_files) <= SMALL_MB * 1e6
    assert {path.name.split("-")[0] for path in shard_files} == set(manifest.frame["split"].unique())


def test_equal_recipes_give_equal_shards(sharded: Path, recipe: Path, tmp_path: Path) -> None:
    again = collect(recipe, tmp_path / "again", shard_mb=SMALL_MB)
    assert tree(again.dataset) == tree(sharded)
    (first, *_) = sorted((sharded / "shards").rglob("*.tar"))
    with tarfile.open(first) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
    unchanged = collect(recipe, sharded, shard_mb=SMALL_MB)
    assert not unchanged.changed


def test_the_library_webdataset_reads_them(sharded: Path) -> None:
    frame = Manifest.load(sharded).frame
    urls = [str(path) for path in sorted((sharded / "shards").rglob("train-*.tar"))]
    seen = {}
    with files_left_open():
        samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    for sample in samples:
        row = json.loads(sample["json"])
        assert sha256_bytes(sample["webp"]) == sample["__key__"] == row["image_id"]
        assert int(sample["cls"]) == row["label"]
        seen[row["image_id"]] = row
    train = frame.filter(split="train")
    assert set(seen) == set(train["image_id"])
    for row in train.iter_rows(named=True):
        expected = {name: str(value) for name, value in row.items() if value is not None and name != "path"}
        assert {name: str(value) for name, value in seen[row["image_id"]].items()} == expected


def test_data_and_audits_read_shards(sharded: Path, files: Path, tmp_path: Path) -> None:
    manifests = [Manifest.load(folder) for folder in (sharded, files)]
    batches = [list(iterate_batches(one, Preprocess(()), batch_size=1, verify_hash=True)) for one in manifests]
    for ours, theirs in zip(*batches, strict=True):
        assert not ours.bad
        assert ours.image_id == theirs.image_id
        assert ours.image_BCHW.equal(theirs.image_BCHW)
    report = audit(sharded, only=["missing_files"], out=tmp_path)
    assert report.passed


def test_a_joined_dataset_may_be_sharded(sharded: Path, tmp_path: Path) -> None:
    joined = write_recipe(tmp_path / "join.yaml", [{"id": "all", "kind": "manifest", "dataset": str(sharded)}])
    assert collect(joined, tmp_path / "joined").n_images == 12


def test_a_shard_that_is_lost_is_named_and_made_again(sharded: Path, recipe: Path, tmp_path: Path) -> None:
    out = shutil.copytree(sharded, tmp_path / "out")
    manifest = Manifest.load(out)
    damaged = container(manifest.image_file(manifest.frame["path"][0]))
    damaged.unlink()
    with pytest.raises(ImageError, match="unreadable"):
        decode_file(manifest.image_file(manifest.frame["path"][0]))
    report = audit(out, only=["missing_files"], out=tmp_path)
    assert not report.passed
    collect(recipe, out, shard_mb=SMALL_MB)
    assert tree(out) == tree(sharded)


def test_a_range_behind_the_end_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"12345")
    assert stored_size(tmp_path / "a.tar#1+4") == 4
    assert read_stored(tmp_path / "a.tar#1+4") == b"2345"
    assert stored_size(tmp_path / "a.tar#2+4") is None
    with pytest.raises(OSError, match="ends before"):
        read_stored(tmp_path / "a.tar#2+4")


def test_the_layout_may_change_without_reading_a_source_again(
    recipe: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(files, tmp_path / "out")

    def none_read(*_: object) -> None:
        pytest.fail("a source was read again")

    monkeypatch.setattr("forgery_det.recipes.gather.process", none_read)
    assert collect(recipe, out, shard_mb=SMALL_MB).changed
    assert not (out / "images").exists()
    assert collect(recipe, out, shard_mb=1).changed
    assert len(list((out / "shards").iterdir())) == 1
    assert collect(recipe, out).changed
    assert not (out / "shards").exists()
    assert tree(out) == tree(files)


@pytest.mark.parametrize("killed_in", ["shard", "tables", "removal"])
def test_a_kill_while_the_layout_changes_loses_no_image(
    recipe: Path, files: Path, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    out = shutil.copytree(files, tmp_path / "out")
    collect(recipe, out, shard_mb=1)
    original = shards._write
    written: list[Path] = []

    def killed(*arguments: object) -> None:
        written.append(tmp_path)
        if killed_in != "shard" or len(written) == 3:
            raise KeyboardInterrupt
        original(*arguments)  # type: ignore[arg-type]

    places = {"shard": (shards, "_write"), "tables": (finish, "_same"), "removal": (finish, "remove_leftovers")}
    with monkeypatch.context() as patched:
        patched.setattr(*places[killed_in], killed)
        with pytest.raises(KeyboardInterrupt):
            collect(recipe, out, shard_mb=SMALL_MB)
    monkeypatch.setattr("forgery_det.recipes.gather.process", lambda *_: pytest.fail("a source was read again"))
    collect(recipe, out, shard_mb=SMALL_MB)
    assert tree(out) == tree(sharded)


def test_the_description_names_the_shards(sharded: Path) -> None:
    card = json.loads((sharded / "croissant.json").read_text())
    shard_set, images = card["distribution"][1:]
    assert len(list(sharded.glob(shard_set["includes"]))) == len(list((sharded / "shards").rglob("*.tar")))
    assert images["containedIn"] == {"@id": shard_set["@id"]}
    assert images["includes"] == "*.webp"


def test_the_command_takes_the_size_in_megabytes(recipe: Path, tmp_path: Path) -> None:
    assert main(["collect", str(recipe), "--out", str(tmp_path / "out"), "--shards", "1"]) == 0
    assert {path.name for path in (tmp_path / "out" / "shards").rglob("*.tar")} == {
        f"{split}-000000.tar" for split in Manifest.load(tmp_path / "out").frame["split"].unique()
    }


def test_a_shard_has_a_size(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected the size of a shard above 0 MB, got -1"):
        collect(recipe, tmp_path / "out", shard_mb=-1)
    assert not (tmp_path / "out").exists()
