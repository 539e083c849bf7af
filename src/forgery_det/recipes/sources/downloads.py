"""Files from package registries, pinned by sha256, in a cache folder.

A file is in the cache whole and verified, or not at all: it is downloaded into a folder of its own, its sha256 is
compared with the recipe's, and only then is it renamed into place. A file with the right sha256 that is already there
is used without any network, whoever put it there. Which host a client asks is the user's configuration, never ours.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.progress import Progress, ProgressSink

Fetch = Callable[[Path], None]
"""Puts files into the given folder, or raises `SourceError`."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_POLL_S = 0.25
_PARTIAL_PREFIX = ".downloading-"
_ABANDONED_S = 24 * 3600
"""No download of ours takes a day: what is older was left by a killed process."""


def check_pin(file: str, sha256: str) -> None:
    """Check what a recipe says about a file of a registry.

    Raises:
        ConfigError: `file` is a path, or `sha256` has not 64 lower-case hexadecimal digits.
    """
    if Path(file).name != file:
        raise ConfigError(f"Expected `file` as a bare file name, got {file!r}")
    if not _SHA256.fullmatch(sha256):
        raise ConfigError(f"Expected `sha256` with 64 lower-case hexadecimal digits, got {sha256!r} for {file}")


def cached_file(cache: Path, file: str, sha256: str, fetch: Fetch, where: str) -> Path:
    """Return the path of a pinned file, downloading it if the cache does not hold it.

    Args:
        cache: Folder of downloads.
        file: Name of the file.
        sha256: What its bytes must be.
        fetch: Downloads it.
        where: Source and recipe key, for errors.

    Raises:
        SourceError: It cannot be had, or it has another sha256.
    """
    if (found_file := find_cached(cache, file, sha256)) is not None:
        return found_file
    target = _own_place(cache, file, sha256)
    # Only ours to delete: a user's own file beside it may be another version of the package.
    target.unlink(missing_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(cache)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL_PREFIX, dir=cache) as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        try:
            fetch(folder)
        except SourceError as error:
            raise SourceError(
                f"Expected {file} (sha256 {sha256}) in the cache or from the registry, got neither ({where}). "
                f"With network, run the same command again; without, put the file into {cache}. {error}"
            ) from error
        found = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        name = next((name for name, digest in found.items() if digest == sha256), None)
        if name is None:
            raise SourceError(f"Expected {file} with sha256 {sha256}, got {found or 'no file'} ({where}).")
        target.parent.mkdir(exist_ok=True)
        (folder / name).replace(target)
    return target


def find_cached(cache: Path, file: str, sha256: str) -> Path | None:
    """Return the path of a pinned file in the cache, None when it is not there or has other bytes.

    Args:
        cache: Folder of downloads.
        file: Name of the file.
        sha256: What its bytes must be.
    """
    for candidate in (_own_place(cache, file, sha256), cache / file):
        if candidate.is_file() and sha256_file(candidate) == sha256:
            return candidate
    return None


def _own_place(cache: Path, file: str, sha256: str) -> Path:
    return cache / sha256[:16] / file


def _remove_abandoned(cache: Path) -> None:
    for partial in cache.glob(f"{_PARTIAL_PREFIX}*"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(partial, ignore_errors=True)


def pip_download(package: str, version: str, file: str, sha256: str, report: Reporter) -> Fetch:
    """Return a fetch of one wheel, the very same file on every platform, through the user's pip configuration.

    Hash checking makes pip take the file that the recipe pins and no other; the tags of its name are passed on, so that
    a wheel built for another Python or platform is downloaded too (nothing is ever installed or run).
    """
    python, abi, platforms = wheel_tags(file)

    def fetch(folder: Path) -> None:
        wanted = folder.parent / "wanted.txt"
        wanted.write_text(f"{package}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [
            *_pip(), "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--ignore-requires-python",
            "--no-input", "--disable-pip-version-check", "--progress-bar=off", f"--requirement={wanted}",
            f"--dest={folder}", f"--python-version={python[2:]}", f"--implementation={python[:2]}", f"--abi={abi}",
            *(f"--platform={platform}" for platform in platforms),
        ]  # fmt: skip
        run_client(command, folder, report)

    return fetch


def wheel_tags(file: str) -> tuple[str, str, tuple[str, ...]]:
    """Return the first Python tag, the first ABI tag and the platform tags of a wheel's file name.

    Raises:
        ConfigError: It is not the file name of a wheel.

    Example:
        >>> wheel_tags("a-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
        ('cp311', 'cp311', ('manylinux_2_17_x86_64', 'manylinux2014_x86_64'))
        >>> wheel_tags("a-1.0-py2.py3-none-any.whl")
        ('py3', 'none', ('any',))
    """
    parts = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or len(parts) not in (5, 6) or not re.match(r"[a-z]{2}\d", parts[-3]):
        raise ConfigError(f"Expected the file name of a wheel, got {file!r}")
    return max(parts[-3].split(".")), parts[-2].split(".")[0], tuple(parts[-1].split("."))


def _pip() -> Sequence[str]:
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    # Every pip will do: tags and hash are given, so the Python it belongs to decides nothing.
    on_path = shutil.which("pip") or shutil.which("pip3")
    if on_path is None:
        raise SourceError("Expected pip, got none: install it with `uv pip install pip` or `python -m ensurepip`.")
    return (on_path,)


class Reporter:
    """Tells the progress of a download from the size of the files in its folder, whichever client writes them.

    Args:
        progress: Sink.
        file: What is downloaded.
        size_bytes: Its size, None when the recipe does not say.
    """

    def __init__(self, progress: ProgressSink, file: str, size_bytes: int | None) -> None:
        self._progress, self._file, self._size_bytes = progress, file, size_bytes

    def __call__(self, n_bytes: int) -> None:
        """Report that so many bytes have come."""
        self._progress(Progress(f"download {self._file}", n_bytes, self._size_bytes, "bytes"))


def run_client(command: Sequence[str], folder: Path, report: Reporter) -> None:
    """Run a registry's client in `folder` until it ends, reporting progress.

    Raises:
        SourceError: It cannot be started or fails; the text ends with its last lines.
    """
    temporary = folder.parent / "temporary"
    temporary.mkdir(exist_ok=True)
    log = folder.parent / "client.log"
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": str(temporary)},
            )  # fmt: skip
        except OSError as error:
            raise SourceError(f"Expected to run {command[0]}, got: {error.strerror}.") from error
        try:
            while process.poll() is None:
                report(_size_bytes(folder.parent))
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise SourceError(f"{command[0]} ended with code {process.returncode}: {' / '.join(lines[-3:])}")
    report(_size_bytes(folder))


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            # The client moved its temporary file between listing and asking.
            continue
    return total
