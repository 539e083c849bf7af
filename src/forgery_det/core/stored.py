"""Where the bytes of an image lie: a file of its own, or a range of bytes in a tar shard.

The manifest's `path` says it, relative to the dataset folder:

    images/ab/abcd....webp                    a file
    shards/train-000000.tar#1536+20480        20,480 bytes from byte 1536 of a shard

Tar stores members as they are, so the range alone gives random access: nothing is unpacked, no index is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_RANGE = re.compile(r"(.+\.tar)#(\d+)\+(\d+)")


class ByteRange(NamedTuple):
    """Some bytes of a file.

    Args:
        file: The file.
        start: First byte, from 0.
        n_bytes: How many.
    """

    file: Path
    start: int
    n_bytes: int


def shard_path(shard: str, start: int, n_bytes: int) -> str:
    """Return the `path` of an image inside a shard.

    Example:
        >>> shard_path("shards/train-000000.tar", 1536, 20480)
        'shards/train-000000.tar#1536+20480'
    """
    return f"{shard}#{start}+{n_bytes}"


def byte_range(path: Path) -> ByteRange | None:
    """Return the range that a path names, None for a file of its own.

    Example:
        >>> byte_range(Path("d/shards/train-000000.tar#1536+20480")).n_bytes
        20480
        >>> byte_range(Path("d/images/ab/ab.webp")) is None
        True
    """
    found = _RANGE.fullmatch(str(path))
    return None if found is None else ByteRange(Path(found[1]), int(found[2]), int(found[3]))


def is_in_shard(path: str) -> bool:
    """Return whether a `path` value of a manifest names a range in a shard.

    Example:
        >>> is_in_shard("shards/train-000000.tar#1536+20480"), is_in_shard("images/ab/ab.webp")
        (True, False)
    """
    return _RANGE.fullmatch(path) is not None


def container(path: Path) -> Path:
    """Return the file that holds the bytes at `path`: the shard, or the image's own file."""
    place = byte_range(path)
    return path if place is None else place.file


def stored_size(path: Path) -> int | None:
    """Return how many bytes lie at `path`, None where they are missing or the shard ends before them."""
    place = byte_range(path)
    file = path if place is None else place.file
    if not file.is_file():
        return None
    size = file.stat().st_size
    if place is None:
        return size
    return place.n_bytes if place.start + place.n_bytes <= size else None


def read_stored(path: Path) -> bytes:
    """Return the bytes that lie at `path`.

    Raises:
        OSError: The file is missing or cannot be read, or the shard ends too early.
    """
    place = byte_range(path)
    if place is None:
        return path.read_bytes()
    with place.file.open("rb") as file:
        file.seek(place.start)
        data = file.read(place.n_bytes)
    if len(data) < place.n_bytes:
        raise OSError(5, f"{place.n_bytes} bytes from byte {place.start}: the shard ends before")
    return data
