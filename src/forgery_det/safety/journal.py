"""What a run has done so far, a line a walk: killed at any moment, it loses the walk in flight and nothing else.

A line holds the rows of `items` and of `judgements` that came of one walk, under the digest of all that decides its
answers. Walks that failed are shown by the run they failed in and tried again by the next. The journal lies in the
run's `.work`; texts are in it as they came, whatever the report hides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from forgery_det.core.artefacts import canonical_json

JOURNAL_NAME = "walks.jsonl"


@dataclass(frozen=True, slots=True)
class WalkRecord:
    """What came of one walk.

    Args:
        digest: Of all that decides its answers.
        items: Rows of `items.parquet`, one a hop.
        judgements: Judge's digest -> rows of `judgements.parquet`.
    """

    digest: str
    items: tuple[Mapping[str, Any], ...]
    judgements: Mapping[str, tuple[Mapping[str, Any], ...]]


class WalkJournal:
    """The journal of a run, open for appending; safe to use from several threads.

    Args:
        path: Made when absent; a half-written last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.records: dict[str, WalkRecord] = {}
        self.failures: dict[str, WalkRecord] = {}
        self.requests = 0
        self.spent_usd = 0.0
        self._lock = Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(path) if path.is_file() else 0
        self._file = path.open("ab")
        self._file.truncate(whole)

    def _read(self, path: Path) -> int:
        whole = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except (json.JSONDecodeError, UnicodeDecodeError):
                    entry = None
                if not isinstance(entry, dict):
                    break
                record = WalkRecord(
                    entry["digest"],
                    tuple(entry["items"]),
                    {name: tuple(rows) for name, rows in entry["judgements"].items()},
                )
                # A later line of the same walk has more judges.
                self._take(record)
                whole += len(line)
        return whole

    def add(self, record: WalkRecord) -> None:
        """Append a walk, or the same walk with more judgements."""
        line = canonical_json({
            "digest": record.digest,
            "items": list(record.items),
            "judgements": {name: list(rows) for name, rows in record.judgements.items()},
        })  # fmt: skip
        with self._lock:
            self._file.write(line.encode("utf-8") + b"\n")
            self._file.flush()
            self._take(record)

    def fail(self, record: WalkRecord) -> None:
        """Remember a walk that failed, for this run alone; what it cost counts."""
        with self._lock:
            self.failures[record.digest] = record
            self._count(record)

    def _take(self, record: WalkRecord) -> None:
        if record.digest not in self.records:
            self._count(record)
        self.records[record.digest] = record

    def _count(self, record: WalkRecord) -> None:
        asked = [row for row in record.items if row["hop"] != "input"]
        self.requests += len(asked)
        self.spent_usd += sum(row["cost_usd"] or 0.0 for row in asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()
