"""Progress for people: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from forgery_det.core.progress import Progress, ProgressSink

LINE_EVERY_S = 5.0
"""Seconds between two plain lines of one stage."""

LEAST_S = 0.5
"""A stage shorter than this is told without a rate, which would be noise."""


@contextmanager
def shown_progress() -> Iterator[ProgressSink]:
    """Yield a sink that draws on standard error, so that standard output keeps to results."""
    if sys.stderr.isatty():
        with _bars() as bars:
            yield _Drawn(bars)
    else:
        yield _Lines()


def _bars() -> Bars:
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True), transient=False)


class _Rate:
    """Items a second since a stage began."""

    def __init__(self, first: Progress) -> None:
        self.started, self.first_done = time.monotonic(), first.done

    def text(self, progress: Progress) -> str:
        seconds = time.monotonic() - self.started
        done = progress.done - self.first_done
        return f"{_amount(done / seconds, progress.unit)}/s" if seconds >= LEAST_S and done > 0 else ""


def _amount(count: float, unit: str) -> str:
    if unit == "bytes":
        return f"{count / 1e6:.1f} MB"
    return f"{count:,.0f} {unit}" if count >= 10 or count == int(count) else f"{count:.1f} {unit}"


class _Drawn:
    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.tasks: dict[str, tuple[TaskID, _Rate]] = {}

    def __call__(self, progress: Progress) -> None:
        if progress.stage not in self.tasks:
            task = self.bars.add_task(progress.stage, total=progress.total, rate="")
            self.tasks[progress.stage] = (task, _Rate(progress))
        task, rate = self.tasks[progress.stage]
        self.bars.update(task, completed=progress.done, total=progress.total, rate=rate.text(progress))


class _Lines:
    """One line when a stage is finished, and one every few seconds before that."""

    def __init__(self) -> None:
        self.rates: dict[str, _Rate] = {}
        self.last: dict[str, float] = {}
        self.finished: set[str] = set()

    def __call__(self, progress: Progress) -> None:
        now, stage = time.monotonic(), progress.stage
        rate = self.rates.setdefault(stage, _Rate(progress))
        finished = progress.total is not None and progress.done >= progress.total
        if stage in self.finished or (not finished and now - self.last.setdefault(stage, now) < LINE_EVERY_S):
            return
        self.last[stage] = now
        if finished:
            self.finished.add(stage)
        of = f" of {_amount(progress.total, progress.unit)}" if progress.total is not None else f" {progress.unit}"
        done = _amount(progress.done, progress.unit) if progress.unit == "bytes" else f"{progress.done:,}"
        speed = rate.text(progress)
        print(f"{stage}: {done}{of}{f' ({speed})' if speed else ''}", file=sys.stderr, flush=True)
