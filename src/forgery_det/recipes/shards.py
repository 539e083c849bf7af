"""The layout of the images: one file an image, or tar shards that the library `webdataset` reads.

    images/<sha[:2]>/<sha>.webp
    shards/<content>/train-000000.tar      for each image <sha>.webp, <sha>.cls (0 or 1) and <sha>.json (its row)

A shard holds images of one split in the order of their ids, which is no order of sources or classes, so that a reader
that streams it meets a mixture. Where every byte of every shard will lie follows from the rows alone: equal datasets
are equal shards, and what is there already need not be written again.

`<content>` is a hash of all rows and of the size: shards of another version of the dataset lie in another folder, and
go when that version is whole. So no moment of a build holds an image nowhere, and going from files to shards, back, or
to another size, reads no source again.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import atomic_path, canonical_json, sha256_bytes, write_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.stored import read_stored, shard_path, stored_size
from forgery_det.core.types import SPLITS
from forgery_det.recipes.process import image_path, image_suffix
from forgery_det.recipes.rows import Candidate

IMAGES_NAME, SHARDS_NAME = "images", "shards"

Placed = Sequence[tuple[Candidate, str]]
"""The rows of a dataset and their splits."""

_BLOCK = tarfile.BLOCKSIZE
_END = b"\0" * (2 * _BLOCK)


def checked_shard_bytes(shard_mb: float) -> int:
    """Return the size of a shard in bytes.

    Raises:
        ConfigError: It is not above 0.

    Example:
        >>> checked_shard_bytes(0.5)
        500000
    """
    if not shard_mb > 0:
        raise ConfigError(f"Expected the size of a shard above 0 MB, got {shard_mb:g} (collect: --shards).")
    return max(1, round(shard_mb * 1_000_000))


def in_layout(placed: Placed, out: Path, shard_bytes: int | None) -> Placed:
    """Bring the images into the layout that is asked for; return the rows with their new paths.

    What no row names any more stays; `finish.remove_unnamed` removes it when the tables are in place.

    Args:
        placed: Rows whose images the folder holds, in whatever layout.
        out: Dataset folder.
        shard_bytes: Largest size of a shard; None stores each image as a file.
    """
    stored = StoredImages(out)
    if shard_bytes is None:
        for candidate, _ in placed:
            path = out / candidate.row["path"]
            if stored_size(path) != candidate.n_bytes:
                write_bytes(path, stored.read(candidate))
        return placed
    shards = plan_shards(placed, shard_bytes)
    paths: dict[str, str] = {}
    for shard in shards:
        if not (out / shard.path).is_file():
            _write(shard, stored, out / shard.path)
        for sample in shard.samples:
            place = shard_path(shard.path, sample.start, sample.candidate.n_bytes)
            paths[sample.candidate.row["image_id"]] = place
    return [(replace(one, row={**one.row, "path": paths[one.row["image_id"]]}), split) for one, split in placed]


class StoredImages:
    """Finds the images that a dataset folder holds, in files and in whole shards of any version."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._index: dict[str, str] = {}
        for shard in sorted((out / SHARDS_NAME).glob("*/*.tar")):
            name = shard.relative_to(out).as_posix()
            with tarfile.open(shard) as tar:
                for member in tar:
                    self._index[member.name] = shard_path(name, member.offset_data, member.size)

    def find(self, row: Mapping[str, Any], n_bytes: int) -> Path | None:
        """Return where the image of a row lies, None where it is missing or has another size."""
        file = image_path(row["image_id"], row["codec"])
        for name in (file, self._index.get(Path(file).name)):
            if name is not None and stored_size(self._out / name) == n_bytes:
                return self._out / name
        return None

    def read(self, candidate: Candidate) -> bytes:
        """Return the bytes of an image that is there."""
        found = self.find(candidate.row, candidate.n_bytes)
        assert found is not None, candidate.row["image_id"]  # collect reads what is lost before it lays anything out
        return read_stored(found)


@dataclass(frozen=True, slots=True)
class Sample:
    """An image in a shard.

    Args:
        candidate: The image.
        start: Its first byte in the shard.
        members: The small members after it: name and content.
    """

    candidate: Candidate
    start: int
    members: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file to be.

    Args:
        path: Relative to the dataset folder.
        samples: The images in order.
    """

    path: str
    samples: tuple[Sample, ...]


def plan_shards(placed: Placed, shard_bytes: int) -> tuple[Shard, ...]:
    """Return the shards of a dataset; nothing is read or written.

    Args:
        placed: Rows and splits.
        shard_bytes: Largest size of a shard; an image that is larger has a shard for itself.
    """
    groups = [
        sorted(((one, _members(one, split)) for one, split in placed if split == name), key=_id) for name in SPLITS
    ]
    content = [[data.decode() for _, members in group for _, data in members] for group in groups]
    folder = f"{SHARDS_NAME}/{sha256_bytes(canonical_json([shard_bytes, content]).encode())[:12]}"
    shards = []
    for split, group in zip(SPLITS, groups, strict=True):
        samples: list[Sample] = []
        end = number = 0
        for candidate, members in group:
            size = _member_size(candidate.n_bytes) + sum(_member_size(len(data)) for _, data in members)
            if samples and end + size + len(_END) > shard_bytes:
                shards.append(Shard(f"{folder}/{split}-{number:06d}.tar", tuple(samples)))
                samples, end, number = [], 0, number + 1
            samples.append(Sample(candidate, end + _BLOCK, members))
            end += size
        if samples:
            shards.append(Shard(f"{folder}/{split}-{number:06d}.tar", tuple(samples)))
    return tuple(shards)


def _id(entry: tuple[Candidate, Any]) -> str:
    return str(entry[0].row["image_id"])


def _members(candidate: Candidate, split: str) -> tuple[tuple[str, bytes], ...]:
    row = {name: value for name, value in candidate.row.items() if name != "path" and value is not None}
    plain = {name: value if isinstance(value, str | int) else str(value) for name, value in row.items()}
    key = row["image_id"]
    described = canonical_json(plain | {"split": split}).encode("utf-8")
    return (f"{key}.cls", str(row["label"]).encode()), (f"{key}.json", described)


def _member_size(n_bytes: int) -> int:
    """Return what a member takes in a tar: its header, and its bytes up to a whole block."""
    return _BLOCK + -(-n_bytes // _BLOCK) * _BLOCK


def _write(shard: Shard, stored: StoredImages, path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for sample in shard.samples:
            row = sample.candidate.row
            name = f"{row['image_id']}.{image_suffix(row['codec'])}"
            for member, data in ((name, stored.read(sample.candidate)), *sample.members):
                file.write(_member(member, data))
        file.write(_END)


def _member(name: str, data: bytes) -> bytes:
    # Written block by block: equal content must be equal bytes, so no time, no owner, and no header that grows.
    header = tarfile.TarInfo(name)
    header.size = len(data)
    whole = BytesIO()
    whole.write(header.tobuf(tarfile.USTAR_FORMAT))
    whole.write(data)
    whole.write(b"\0" * (-len(data) % _BLOCK))
    return whole.getvalue()
