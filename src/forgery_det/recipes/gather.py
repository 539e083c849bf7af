"""Gather: read the items of one source, bring each into the dataset folder, and keep a record of it.

Reading is one thread's work, in the source's order; decoding and encoding run beside it on a few threads (Pillow lets
go of the interpreter). Records are written in the source's order, so an interrupted journal is always a beginning of
the whole one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgery_det._version import __version__
from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import SourceError
from forgery_det.core.progress import Progress, ProgressSink
from forgery_det.recipes.annotations import Annotation
from forgery_det.recipes.process import Steps, encoder_versions, process
from forgery_det.recipes.recipe import Recipe, SourceSpec
from forgery_det.recipes.sources.base import Source, SourceContext, SourceItem
from forgery_det.recipes.sources.registry import SOURCES
from forgery_det.recipes.work import WORK_NAME, Journal, Record

_WORKERS = min(4, os.cpu_count() or 1)
_WINDOW = 4 * _WORKERS
"""Items in work at once; bounds the memory and how much a kill can lose."""

Annotations = Mapping[str, Annotation]


@dataclass(frozen=True, slots=True)
class Opened:
    """A source of a recipe with its table, ready to be gathered.

    Args:
        spec: What the recipe says.
        source: The source.
        table: Its annotations by key, None when every item is wanted.
        steps: What is done to each original.
        journal_path: Where its records are kept.
    """

    spec: SourceSpec
    source: Source
    table: Annotations | None
    steps: Steps
    journal_path: Path

    def annotation(self, key: str) -> Annotation | None:
        """Return what the table says about an item."""
        return None if self.table is None else self.table.get(key)

    def wants(self, key: str) -> bool:
        """Return whether the item is to become images."""
        annotation = self.annotation(key)
        return self.table is None or (annotation is not None and annotation.drop_reason is None)

    def is_settled(self, record: Record) -> bool:
        """Return whether a record is what the table asks for: read if it is wanted, and cut into the same boxes."""
        if not self.wants(record.key):
            return True
        annotation = self.annotation(record.key)
        return not record.unread and record.boxes == (annotation.boxes if annotation else ())


def open_source(
    recipe: Recipe, spec: SourceSpec, table: Annotations | None, out: Path, context: SourceContext
) -> Opened:
    """Return a source with its steps, and the journal that belongs to exactly these."""
    source = SOURCES.get(spec.kind)(spec.parameters, context)
    steps = Steps(recipe.filter, spec.crops, recipe.align)
    deciding = {
        "tool": __version__,
        "encoders": encoder_versions(),
        "source": [spec.id, spec.kind, source.identity()],
        "steps": asdict(steps),
    }
    name = sha256_bytes(canonical_json(deciding).encode("utf-8"))[:32]
    return Opened(spec, source, table, steps, out / WORK_NAME / f"{name}.jsonl")


def gather(opened: Opened, out: Path, forget: set[str], progress: ProgressSink) -> dict[str, Record]:
    """Bring all wanted items of a source into the dataset folder; return the records of all items it has.

    Args:
        opened: The source.
        out: Dataset folder.
        forget: Keys whose records are void because an image is gone.
        progress: Told after every item.

    Raises:
        SourceError: The source cannot be read, or its table names members that it does not have.
    """
    with Journal(opened.journal_path) as journal:
        if forget:
            journal.forget(forget)
        if not _is_complete(opened, journal):
            journal.finish(_read(opened, journal, out, progress))
        records = dict(journal.records)
    absent = sorted(set(opened.table or ()) - set(records))
    if absent:
        raise SourceError(
            f"Expected every member of {opened.spec.annotations} in source {opened.spec.id!r}, got {len(absent)} that "
            f"it does not have, the first {absent[0]!r}."
        )
    return records


def _is_complete(opened: Opened, journal: Journal) -> bool:
    if not (opened.source.pinned and journal.finished):
        return False
    return all(map(opened.is_settled, journal.records.values()))


def _read(opened: Opened, journal: Journal, out: Path, progress: ProgressSink) -> set[str]:
    """Read the source to its end; return the keys that it has."""

    def skip(key: str, stamp: str) -> bool:
        known = journal.records.get(key)
        done = known is not None and known.stamp == stamp and opened.is_settled(known)
        return done or not opened.wants(key)

    # Behind the position may lie items that a changed table wants, or wants cut otherwise.
    changed = journal.finished or not all(map(opened.is_settled, journal.records.values()))
    position = None if changed else journal.position
    before = set(journal.records) if position is not None else set()
    keys: set[str] = set()
    total = None if opened.table is None else len(opened.table)
    stage = f"collect {opened.spec.id}"
    with _workers() as pool:
        waiting: deque[tuple[SourceItem, Future[Record] | None]] = deque()

        def submit(item: SourceItem) -> Future[Record]:
            annotation = opened.annotation(item.key) if opened.wants(item.key) else None
            return pool.submit(process, item, opened.steps, out, annotation)

        def take() -> None:
            item, future = waiting.popleft()
            if future is not None:
                journal.add(future.result(), item.position)
            keys.add(item.key)
            progress(Progress(stage, len(keys), total))

        for item in opened.source.items(skip, position):
            _check_new(item.key, keys, waiting, stage)
            known = item.data is None and item.refusal is None and item.key in journal.records
            waiting.append((item, None if known else submit(item)))
            if len(waiting) >= _WINDOW:
                take()
        while waiting:
            take()
    return keys | before


def _check_new(key: str, keys: set[str], waiting: Any, stage: str) -> None:
    if key in keys or any(item.key == key for item, _ in waiting):
        raise SourceError(f"Expected each key once, got {key!r} again ({stage}).")


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        yield pool
    finally:
        # Ctrl-C or an error: what has not begun is not worth waiting for.
        pool.shutdown(wait=True, cancel_futures=True)
