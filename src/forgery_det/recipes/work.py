"""Work records: what has been done already, so that a killed build goes on where it stopped.

Each source has a journal below `<out>/.work`, a text file with one JSON line an item, appended after the item's images
are on the disk. Its name is a hash of everything that decides the outcome (source, filter, crops, align, versions of
the encoders), so a changed recipe finds no stale record and nothing is ever mixed. A line that a kill cut short is
dropped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from json import JSONDecodeError, loads
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forgery_det.core.artefacts import canonical_json, write_text
from forgery_det.core.errors import ConfigError
from forgery_det.recipes.boxes import Box

WORK_NAME = ".work"
"""Folder of the journals inside a dataset folder; deleting it costs time, nothing else."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is stored about a file, of an original or of an image of the dataset."""

    sha256: str
    width_px: int
    height_px: int
    n_bytes: int
    codec: str
    jpeg_quality: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """One crop of an original or of a box in it: a stored image, or its refusal.

    Args:
        file: Facts of the stored image; None when it was refused.
        phash: Perceptual hash of the stored image.
        refusal: Reason and detail.
        box: The box that it was cut from, None for the whole original.
    """

    file: FileFacts | None = None
    phash: str | None = None
    refusal: tuple[str, str] | None = None
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one item.

    Args:
        key: The item's key.
        stamp: The item's stamp.
        unread: The item was seen and not wanted.
        sha256: Of the original's bytes, None when they could not be had.
        original: Facts of the original, None when it could not be decoded.
        fields: Item fields that the source gave.
        pieces: Its crops, empty when it was refused as a whole.
        refusal: Reason and detail.
        boxes: What was cut out of the original; a record made with other boxes is void.
        notes: Facts for `origins.parquet` that the source gave, as JSON values.
    """

    key: str
    stamp: str = ""
    unread: bool = False
    sha256: str | None = None
    original: FileFacts | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    pieces: tuple[Piece, ...] = ()
    refusal: tuple[str, str] | None = None
    boxes: tuple[Box, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        plain = {name: str(value) if isinstance(value, date) else value for name, value in self.fields.items()}
        return asdict(self) | {"fields": plain}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Record:
        """Return the record that `to_json` described; dates in `fields` stay text.

        Example:
            >>> record = Record("a.png", sha256="00", refusal=("empty", "Expected an image, got zero bytes."))
            >>> Record.from_json(record.to_json()) == record
            True
        """
        pieces = tuple(
            Piece(_facts(p["file"]), p["phash"], _pair(p["refusal"]), _box(p.get("box"))) for p in value["pieces"]
        )
        given = dict(value) | {
            "original": _facts(value["original"]),
            "pieces": pieces,
            "refusal": _pair(value["refusal"]),
            "boxes": tuple(Box(**box) for box in value.get("boxes", ())),
        }
        return cls(**given)


def _facts(value: Mapping[str, Any] | None) -> FileFacts | None:
    return None if value is None else FileFacts(**value)


def _box(value: Mapping[str, Any] | None) -> Box | None:
    return None if value is None else Box(**value)


def _pair(value: Any) -> tuple[str, str] | None:
    return None if value is None else (value[0], value[1])


class Journal:
    """The records of one source; a context manager that holds the file open.

    Attributes:
        records: Key -> record.
        position: Where a streaming source goes on, None to start over.
        finished: The source was read to its end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self.position: Any = None
        self.finished = False
        whole = self._read() if path.is_file() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def _read(self) -> int:
        """Take in all whole lines; return the number of bytes they fill."""
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    entry = loads(line) if line.endswith(b"\n") else None
                except (JSONDecodeError, UnicodeDecodeError):
                    entry = None
                if not isinstance(entry, dict):
                    break
                self._take(entry)
                whole += len(line)
        return whole

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "record" in entry:
            record = Record.from_json(entry["record"])
            self.records[record.key] = record
        self.position = entry.get("position", self.position)
        self.finished = entry.get("finished", self.finished)

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._file.write(canonical_json(entry).encode("utf-8") + b"\n")
        # Past flush the line survives the process; surviving the machine is not needed, a lost line is work done again.
        self._file.flush()
        self._take(entry)

    def add(self, record: Record, position: Any = None) -> None:
        """Append a record, and where the source goes on after it."""
        entry: dict[str, Any] = {"record": record.to_json()}
        self._append(entry if position is None else entry | {"position": position})

    def finish(self, keys: set[str]) -> None:
        """Keep the records of `keys` alone, sorted, and mark the source as read to its end."""
        self.rewrite({key: self.records[key] for key in sorted(keys)}, finished=True)

    def forget(self, keys: set[str]) -> None:
        """Drop records whose images are gone, so that the source is read for them again."""
        self.rewrite({key: record for key, record in self.records.items() if key not in keys}, finished=False)

    def rewrite(self, records: dict[str, Record], finished: bool) -> None:
        """Replace the journal atomically."""
        entries: list[Mapping[str, Any]] = [{"record": record.to_json()} for record in records.values()]
        if finished:
            entries.append({"finished": True})
        text = "".join(canonical_json(entry) + "\n" for entry in entries)
        if self.path.read_text(encoding="utf-8") != text:
            self._file.close()
            write_text(self.path, text)
            self._file = self.path.open("ab")
        self.records, self.position, self.finished = dict(records), None, finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold the dataset folder for this process alone; the lock ends with the process, however that ends.

    Raises:
        ConfigError: Another process is building this dataset.
    """
    path = out / WORK_NAME / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ConfigError(
                f"Expected to be the only process that builds {out}, got process {file.read().strip() or 'unknown'} at "
                "work there: wait for it, or choose another `--out`."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)
