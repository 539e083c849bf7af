"""A file of predictions that grows by batches and survives `kill -9`: the same command goes on where it was cut off.

    scores.csv            appears when every path has its row
    scores.csv.part       the rows so far, appended a batch at a time
    scores.csv.run.json   the settings, written first; the outcome, written last; stays, as the record of the file

Where it was is read off the rows themselves, so rows and journal cannot disagree. On a new start the rows in `.part`
are counted up to the last whole batch, what follows (a row that was cut, a batch that was not full) is cut away, and
the paths of the rows that stay are compared with the paths given now. So batches hold the same images as in a run that
was never cut off, and the file ends up the same byte for byte; scored twice are only images of the batches that were
in flight. Memory is bounded by the batches in flight, whatever the length of the file.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from forgery_det.core.artefacts import write_json
from forgery_det.core.errors import ConfigError
from forgery_det.core.prediction_rows import PredictionRow, format_rows, written_path

PART_SUFFIX, RUN_SUFFIX = ".part", ".run.json"
STYLES = ("csv", "jsonl")
"""Styles that can be read back and continued."""


@dataclass(frozen=True, slots=True)
class RowFileSpec:
    """What makes two runs the same: only then may one continue the other.

    Args:
        path: The file to make.
        style: `csv` or `jsonl`.
        columns: Of the rows.
        batch_size: Rows of a batch; the file is cut back to a multiple of it.
        settings: JSON values that decide the rows: model, operating point, the words that name the files.
    """

    path: Path
    style: str
    columns: tuple[str, ...]
    batch_size: int
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check the style."""
        if self.style not in STYLES:
            raise ConfigError(f"Expected {' or '.join(STYLES)} for a file that can be resumed, got {self.style!r}.")

    def to_json(self) -> dict[str, Any]:
        """Return what `.run.json` keeps under `settings`."""
        shape = {"style": self.style, "columns": list(self.columns), "batch_size": self.batch_size}
        # Through JSON, so that what is compared later is what was written.
        plain: dict[str, Any] = json.loads(json.dumps({**self.settings, **shape}))
        return plain


class RowFile:
    """The file while it is made; a context manager that holds it for this process alone.

    Attributes:
        n_rows: Rows in the file.
        n_failed: Rows with an error among them.
        finished: Every path has its row and the file has its name: there is nothing left to do.

    Raises:
        ConfigError: On entering: the file is not ours, was begun with other settings, or another process writes it.
    """

    def __init__(self, spec: RowFileSpec) -> None:
        self.spec = spec
        self.n_rows = 0
        self.n_failed = 0
        self.finished = False
        self._part = spec.path.with_name(spec.path.name + PART_SUFFIX)
        self._run = spec.path.with_name(spec.path.name + RUN_SUFFIX)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.spec.path.parent.mkdir(parents=True, exist_ok=True)
        outcome = self._check_settings()
        if outcome is not None:
            # A kill between writing the outcome and renaming leaves the whole file under its other name.
            if self._part.exists():
                self._part.replace(self.spec.path)
            self.n_rows, self.n_failed, self.finished = outcome["rows"], outcome["failed"], True
            return self
        self._file: BinaryIO = self._open.enter_context(self._part.open("ab"))
        self._lock()
        self._file.truncate(self._whole_bytes())
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    def remaining(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the paths that have no row yet.

        Raises:
            ConfigError: The rows in the file are not those of the first paths.
        """
        waiting = iter(paths)
        for path, error in self._written():
            given = next(waiting, None)
            if given is None or written_path(given, self.spec.style) != path:
                raise ConfigError(
                    f"Expected the same files as when {self._part} was begun, got {given!r} where row "
                    f"{self.n_rows + 1} is of {path!r}: files were added, removed or renamed. Name the same files, or "
                    f"delete {self._part} and {self._run} to start over."
                )
            self.n_rows += 1
            self.n_failed += bool(error)
        yield from waiting

    def write(self, rows: Iterable[PredictionRow]) -> Iterator[PredictionRow]:
        """Append rows a batch at a time, and yield each one when it is in the file."""
        waiting = iter(rows)
        while batch := list(islice(waiting, self.spec.batch_size)):
            lines = format_rows(batch, self.spec.style, self.spec.columns, header=self._file.tell() == 0)
            # One write, flushed: from here on the batch survives the process.
            self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
            self._file.flush()
            self.n_rows += len(batch)
            self.n_failed += sum(row.error is not None for row in batch)
            yield from batch

    def finish(self) -> None:
        """Give the file its name; call it when every path has its row."""
        if self.n_rows == 0 and self.spec.style == "csv":
            self._file.write(f"{','.join(self.spec.columns)}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        outcome = {"rows": self.n_rows, "failed": self.n_failed}
        write_json(self._run, {"settings": self.spec.to_json(), "outcome": outcome})
        self._part.replace(self.spec.path)
        self.finished = True

    def _check_settings(self) -> dict[str, Any] | None:
        """Return the outcome of a finished file; write the settings of a new one."""
        wanted = self.spec.to_json()
        if not self._run.exists():
            for path in (self.spec.path, self._part):
                if path.exists():
                    raise ConfigError(
                        f"Expected a new file, or one that has its {RUN_SUFFIX} beside it, got {path}. Name another "
                        "file, or delete this one."
                    )
            write_json(self._run, {"settings": wanted, "outcome": None})
            return None
        try:
            kept = json.loads(self._run.read_bytes())
            found, outcome = kept["settings"], kept["outcome"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"Expected the settings of {self.spec.path}, got {error!r} ({self._run}).") from error
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                raise ConfigError(
                    f"Expected the command that began {self.spec.path}, with {name} = {found.get(name)!r}, got "
                    f"{wanted.get(name)!r} ({self._run}). Name another file, or delete this one, its {PART_SUFFIX} "
                    f"and its {RUN_SUFFIX}."
                )
        return dict(outcome) if outcome else None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._open.close()
            raise ConfigError(
                f"Expected to be the only process that writes {self.spec.path}, got another at work there: wait for "
                "it, or name another file."
            ) from error

    def _whole_bytes(self) -> int:
        """Return the length of the header and of the rows of whole batches."""
        header = self.spec.style == "csv"
        end = position = 0
        for n_records, record in enumerate(_records(self._part, self.spec.style), start=0 if header else 1):
            position += len(record)
            if n_records and n_records % self.spec.batch_size == 0:
                end = position
        return end

    def _written(self) -> Iterator[tuple[str, str | None]]:
        """Yield path and error of each row in the file."""
        records = _records(self._part, self.spec.style)
        if self.spec.style == "csv":
            next(records, None)
            path, error = self.spec.columns.index("path"), self.spec.columns.index("error")
            for row in csv.reader(record.decode("utf-8", "replace") for record in records):
                yield (row[path], row[error]) if len(row) > max(path, error) else ("", None)
            return
        for record in records:
            try:
                value = json.loads(record)
                yield value["path"], value["error"]
            except (ValueError, KeyError, TypeError):
                yield "", None  # no path is empty, so this row is told as one that does not fit


def _records(path: Path, style: str) -> Iterator[bytes]:
    """Yield the whole records of a file; a line break inside quotes does not end a CSV record."""
    waiting = b""
    with path.open("rb") as file:
        for line in file:
            waiting += line
            if style == "csv" and waiting.count(b'"') % 2:
                continue
            if not waiting.endswith(b"\n"):
                return
            yield waiting
            waiting = b""
