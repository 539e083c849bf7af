from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import SourceError
from forgery_det.core.progress import Progress
from forgery_det.recipes.sources import downloads, python_package
from forgery_det.recipes.sources.base import SourceContext, SourceItem, default_cache
from forgery_det.recipes.sources.python_package import PythonPackageParameters, PythonPackageSource
from synth.images import write_wheel

FILE = "pictures-1.0-py3-none-any.whl"
MEMBERS = {"pictures/b.png": b"bbb", "pictures/a.jpg": b"aaa", "pictures/__init__.py": b""}


def _source(cache: Path, pin: dict[str, Any], seen: list[Progress] | None = None) -> PythonPackageSource:
    progress = (seen if seen is not None else []).append
    return PythonPackageSource(PythonPackageParameters(**pin), SourceContext("s", cache, cache, progress))


def _items(source: PythonPackageSource) -> list[SourceItem]:
    return list(source.items(lambda _key, _stamp: False))


def _client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a stand-in for pip into place: it runs `body` with the destination folder in `dest`."""
    script = tmp_path / "client.py"
    find = "dest = next(a.split('=', 1)[1] for a in sys.argv if a.startswith('--dest='))"
    script.write_text(f"import shutil, sys\n{find}\n{body}\n")
    monkeypatch.setattr(downloads, "_pip", lambda: (sys.executable, str(script)))


def test_members_come_sorted_from_a_wheel_that_lies_in_the_cache(tmp_path: Path) -> None:
    pin = write_wheel(tmp_path / FILE, MEMBERS)
    items = _items(_source(tmp_path, pin))
    assert [(item.key, item.data) for item in items] == [("pictures/a.jpg", b"aaa"), ("pictures/b.png", b"bbb")]
    assert [item.key for item in _items(_source(tmp_path, pin | {"globs": ("*.py",)}))] == ["pictures/__init__.py"]


def test_a_download_is_verified_reported_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = write_wheel(tmp_path / "registry" / FILE, MEMBERS)
    _client(tmp_path, monkeypatch, f"shutil.copy({str(tmp_path / 'registry' / FILE)!r}, dest)")
    cache, seen = tmp_path / "cache", list[Progress]()
    cache.mkdir()
    n_bytes = (tmp_path / "registry" / FILE).stat().st_size
    assert len(_items(_source(cache, pin | {"size_bytes": n_bytes}, seen))) == 2
    assert seen[-1] == Progress(f"download {FILE}", n_bytes, n_bytes, "bytes")
    assert [path.name for path in cache.rglob("*") if path.is_file()] == [FILE]
    _client(tmp_path, monkeypatch, "sys.exit('must not run again')")
    assert len(_items(_source(cache, pin))) == 2


def test_pip_is_asked_for_the_pinned_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(downloads, "run_client", lambda command, *_: asked.extend(command))
    file = "a-1.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
    with pytest.raises(SourceError):
        _items(_source(tmp_path, {"package": "a", "version": "1.0", "file": file, "sha256": "0" * 64}))
    for option in (
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--python-version=311",
        "--implementation=cp",
        "--abi=cp311",
        "--platform=manylinux_2_24_x86_64",
        "--platform=manylinux_2_28_x86_64",
    ):
        assert option in asked


def test_without_network_and_cache_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = write_wheel(tmp_path / "registry" / FILE, MEMBERS)
    _client(tmp_path, monkeypatch, "sys.exit('no route to host')")
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(SourceError) as caught:
        _items(_source(cache, pin))
    text = str(caught.value)
    assert f"Expected {FILE} (sha256 {pin['sha256']}) in the cache or from the registry, got neither" in text
    assert f"put the file into {cache}" in text
    assert "no route to host" in text
    assert list(cache.rglob("*.whl")) == []


def test_without_any_pip_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = write_wheel(tmp_path / "registry" / FILE, MEMBERS)
    monkeypatch.setattr(downloads.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setattr(downloads.shutil, "which", lambda _name: None)
    with pytest.raises(SourceError, match="Expected pip, got none: install it with"):
        _items(_source(tmp_path, pin))


def test_other_bytes_are_refused_and_a_users_file_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = write_wheel(tmp_path / "registry" / FILE, MEMBERS)
    other = write_wheel(tmp_path / "cache" / FILE, MEMBERS | {"x.png": b"x"})
    _client(tmp_path, monkeypatch, f"shutil.copy({str(tmp_path / 'cache' / FILE)!r}, dest)")
    with pytest.raises(SourceError, match=f"with sha256 {pin['sha256']}, got .*{other['sha256']}"):
        _items(_source(tmp_path / "cache", pin))
    assert sha256_file(tmp_path / "cache" / FILE) == other["sha256"]


def test_a_damaged_download_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = write_wheel(tmp_path / "registry" / FILE, MEMBERS)
    _client(tmp_path, monkeypatch, f"shutil.copy({str(tmp_path / 'registry' / FILE)!r}, dest)")
    cache = tmp_path / "cache"
    cache.mkdir()
    _items(_source(cache, pin))
    (stored,) = cache.rglob(FILE)
    stored.write_bytes(stored.read_bytes()[:-1])
    assert len(_items(_source(cache, pin))) == 2


def test_a_bomb_and_a_damaged_member_are_refused_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_package, "MAX_ITEM_BYTES", 1000)
    path = tmp_path / FILE
    write_wheel(path, {"bomb.png": bytes(10_000), "good.png": b"good", "torn.png": bytes(range(200))})
    with zipfile.ZipFile(path) as wheel:
        start = wheel.getinfo("torn.png").header_offset
    data = bytearray(path.read_bytes())
    data[start + 60] ^= 0xFF
    path.write_bytes(data)
    pin = {"package": "pictures", "version": "1.0", "file": FILE, "sha256": sha256_file(path)}
    found = {item.key: item.refusal[0] if item.refusal else item.data for item in _items(_source(tmp_path, pin))}
    assert found == {"bomb.png": "too_many_bytes", "good.png": b"good", "torn.png": "unreadable"}


def test_a_file_that_is_no_wheel_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a zip archive")
    pin = {"package": "pictures", "version": "1.0", "file": FILE, "sha256": sha256_file(tmp_path / FILE)}
    with pytest.raises(SourceError, match=r"Expected a wheel \(a zip archive\)"):
        _items(_source(tmp_path, pin))


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGERY_DET_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("FORGERY_DET_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/forgery-det")
