from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import SourceError
from forgery_det.recipes.sources import debian_package
from forgery_det.recipes.sources.base import SourceContext
from forgery_det.recipes.sources.debian_package import DebianPackageParameters, DebianPackageSource

FILE = "lakes_1.0_all.deb"
needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is part of Debian systems only")


def _build(folder: Path) -> dict[str, Any]:
    """Build a small package with dpkg-deb and return the keys that pin it."""
    root = folder / "root"
    images = root / "usr" / "share" / "lakes"
    images.mkdir(parents=True)
    for name in ("b.jpg", "a.png", "large.png"):
        (images / name).write_bytes(name.encode() * (100 if name == "large.png" else 1))
    (images / "readme.txt").write_text("no image")
    (images / "link.png").symlink_to("a.png")
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: lakes\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: lakes\n"
    )
    command = ["dpkg-deb", "--build", "-Zgzip", str(root), str(folder / FILE)]
    subprocess.run(command, check=True, capture_output=True)
    return {"package": "lakes", "version": "1.0", "file": FILE, "sha256": sha256_file(folder / FILE)}


def _source(cache: Path, pin: dict[str, Any]) -> DebianPackageSource:
    return DebianPackageSource(DebianPackageParameters(**pin), SourceContext("s", cache, cache))


@needs_dpkg
def test_regular_files_are_read_and_links_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_package, "MAX_ITEM_BYTES", 500)
    source = _source(tmp_path, _build(tmp_path))
    found = {item.key: item.refusal or item.data for item in source.items(lambda _key, _stamp: False)}
    assert found == {
        "usr/share/lakes/a.png": b"a.png",
        "usr/share/lakes/b.jpg": b"b.jpg",
        "usr/share/lakes/large.png": ("too_many_bytes", "Expected at most 104857600 bytes, got 900."),
    }
    assert all(item.data is None for item in source.items(lambda _key, _stamp: True))


@needs_dpkg
def test_stopping_early_leaves_no_process_behind(tmp_path: Path) -> None:
    items = _source(tmp_path, _build(tmp_path)).items(lambda _key, _stamp: False)
    next(items)
    items.close()  # type: ignore[attr-defined]


@needs_dpkg
def test_a_file_that_is_no_package_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no archive")
    pin = {"package": "lakes", "version": "1.0", "file": FILE, "sha256": sha256_file(tmp_path / FILE)}
    with pytest.raises(SourceError, match="Expected a Debian package"):
        list(_source(tmp_path, pin).items(lambda _key, _stamp: False))


def test_without_apt_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian_package.shutil, "which", lambda _name: None)
    pin = {"package": "lakes", "version": "1.0", "file": FILE, "sha256": "0" * 64}
    with pytest.raises(SourceError, match="Expected apt-get, got none: this source needs a Debian system"):
        list(_source(tmp_path, pin).items(lambda _key, _stamp: False))


def test_the_plain_name_is_tried_after_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], folder: Path, report: object) -> None:
        asked.append(command[1:])
        raise SourceError("apt-get ended with code 100: no such version")

    monkeypatch.setattr(debian_package.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(debian_package, "run_client", run)
    pin = {"package": "lakes", "version": "1.0", "file": FILE, "sha256": "0" * 64}
    with pytest.raises(SourceError, match="run `apt-get update` first"):
        list(_source(tmp_path, pin).items(lambda _key, _stamp: False))
    assert asked == [["download", "lakes=1.0"], ["download", "lakes"]]
