"""Images that a Debian package ships, read straight from its archive; nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgery_det.core.errors import SourceError
from forgery_det.recipes.sources.base import MAX_ITEM_BYTES, Skip, Source, SourceContext, SourceItem
from forgery_det.recipes.sources.downloads import Fetch, Reporter, cached_file, check_pin, run_client
from forgery_det.recipes.sources.folder import matches, too_large
from forgery_det.recipes.sources.outlook import Outlook, pinned_file


@dataclass(frozen=True, slots=True)
class DebianPackageParameters:
    """Keys of a `debian_package` source.

    Args:
        package: Name in Debian.
        version: Exact version.
        file: File name of the package as downloaded.
        sha256: Of the package file.
        globs: Patterns over member names (`*` also matches `/`); empty takes all image suffixes.
        size_bytes: Size of the package file, for the progress bar.
    """

    package: str
    version: str
    file: str
    sha256: str
    globs: tuple[str, ...] = ()
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        check_pin(self.file, self.sha256)


class DebianPackageSource(Source):
    """Every matching regular file of one package, in the order of the archive; links are other names of such files.

    The key is the path without the leading `./`, such as `usr/share/backgrounds/lake.jpg`.
    """

    Parameters = DebianPackageParameters
    pinned = True

    def __init__(self, parameters: DebianPackageParameters, context: SourceContext) -> None:
        self._parameters = parameters
        self._context = context

    def identity(self) -> Mapping[str, Any]:
        """Return the sha256 of the package file and the globs."""
        return {"sha256": self._parameters.sha256, "globs": list(self._parameters.globs)}

    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:  # noqa: ARG002 - re-read from the start
        """Yield the files.

        Raises:
            SourceError: The package cannot be had or unpacked, or no file matches.
        """
        path = self._package_file()
        found = False
        with _tar(path) as tar:
            for member in tar:
                key = member.name.removeprefix("./")
                if member.isreg() and matches(key, self._parameters.globs):
                    found = True
                    yield _item(tar, member, key, skip)
        if not found:
            raise SourceError(f"Expected matching files, got none ({self._parameters.file}: globs).")

    def outlook(self) -> Outlook:
        """Return the file that is fetched; what is in it, only its table can say."""
        wanted = self._parameters
        pinned = pinned_file(self._context.cache, wanted.file, wanted.sha256, wanted.size_bytes)
        return Outlook(more=None, downloads=(pinned,))

    def _package_file(self) -> Path:
        wanted = self._parameters
        report = Reporter(self._context.progress, wanted.file, wanted.size_bytes)
        where = f"source {self._context.source_id!r}, {wanted.package} {wanted.version}"
        fetch = _apt_download(wanted.package, wanted.version, report)
        return cached_file(self._context.cache, wanted.file, wanted.sha256, fetch, where)


def _apt_download(package: str, version: str, report: Reporter) -> Fetch:
    def fetch(folder: Path) -> None:
        apt = shutil.which("apt-get")
        if apt is None:
            raise SourceError(
                "Expected apt-get, got none: this source needs a Debian system, or the file in the cache."
            )
        # apt downloads as the user _apt, who must be able to write here.
        for path in (folder.parent, folder):
            path.chmod(0o777)
        failures = []
        # Some mirrors serve only the newest version by its plain name; the sha256 decides whether it is the right one.
        for name in (f"{package}={version}", package):
            try:
                return run_client([apt, "download", name], folder, report)
            except SourceError as error:
                failures.append(str(error))
        raise SourceError(f"If the package lists are empty or old, run `apt-get update` first. {' '.join(failures)}")

    return fetch


class _tar:  # noqa: N801 - used as a context manager, like a function
    """The archive of files inside a package, as `dpkg-deb` unpacks it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tarfile.TarFile:
        command = ["dpkg-deb", "--fsys-tarfile", str(self._path)]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError as error:
            raise SourceError(
                f"Expected dpkg-deb to unpack {self._path.name}, got: {error.strerror}: install the package `dpkg`."
            ) from error
        try:
            self._tar = tarfile.open(fileobj=self._process.stdout, mode="r|")
        except tarfile.TarError as error:
            self._end()
            raise SourceError(f"Expected a Debian package, got: {error} ({self._path}).") from error
        return self._tar

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._end()

    def _end(self) -> None:
        # The reader may stop early; dpkg-deb would then wait for ever on the full pipe.
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.terminate()
        self._process.wait()


def _item(tar: tarfile.TarFile, member: tarfile.TarInfo, key: str, skip: Skip) -> SourceItem:
    if skip(key, ""):
        return SourceItem(key)
    if member.size > MAX_ITEM_BYTES:
        return SourceItem(key, refusal=too_large(member.size))
    file = tar.extractfile(member)
    return SourceItem(key, data=None if file is None else file.read())
