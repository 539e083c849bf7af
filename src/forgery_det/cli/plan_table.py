"""The table of `forgery-det collect --plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from forgery_det.core.types import SPLITS
from forgery_det.recipes.plan import Plan, PlanRow
from forgery_det.recipes.sources.outlook import Download

_LEAST_WIDTH = 120
_MOST_ROWS = 40
"""More than that, and each source is one row."""

Number = TypeVar("Number", int, float)
UNKNOWN = "unknown"


def print_plan(plan: Plan) -> None:
    """Print what would be made, what that takes, and what would be downloaded."""
    console = Console()
    if console.width < _LEAST_WIDTH:
        # Broken lines can be read, columns of two letters cannot.
        console = Console(width=_LEAST_WIDTH)
    rows = plan.rows if len(plan.rows) <= _MOST_ROWS else _by_source(plan.rows)
    table = Table(
        Column("source", overflow="fold"), Column("generator", overflow="fold"), "level", box=None, pad_edge=False
    )
    for name in ("images", *SPLITS, "done", "to make", "time", "cost", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    if len(rows) > 1:
        table.add_row(*_cells(_sum(plan.rows, "together", "")), end_section=True, style="bold")
    console.print(f"{escape(plan.name)}: nothing was fetched, made or written.", highlight=False)
    console.print(table)
    for line in _remarks(plan, rows):
        console.print(escape(line), highlight=False)


def _remarks(plan: Plan, rows: Sequence[PlanRow]) -> list[str]:
    lines = ["Upper bounds: filters, guards and duplicates take some away. Time is that of one worker after the other."]
    if any(not row.exact for row in rows):
        lines.append("~ expected from the fractions of the split, as only the bytes of an image tell its group.")
    for name, count in plan.texts.items():
        lines.append(f"Texts that a model writes for the prompts {name!r}: {UNKNOWN if count is None else count}.")
    for name, count in plan.budgets.items():
        lines.append(f"Source {name!r} makes at most {count} images a run.")
    lines += [f"Download: {_download(one)}" for one in plan.downloads]
    return [*lines, f"Licence: {plan.licence} Commercial use: {plan.commercial_use}."]


def _download(one: Download) -> str:
    size = "" if one.n_bytes is None else f", {_bytes(one.n_bytes)}"
    state = {True: " (in the cache)", False: " (not in the cache)", None: ""}[one.cached]
    return f"{one.name}{size}{state}"


def _cells(row: PlanRow) -> list[str]:
    mark = "" if row.exact else "~"
    splits = [f"{mark}{row.splits[name]:.0f}" if row.splits else "?" for name in SPLITS]
    return [
        escape(row.source),
        escape(row.generator or UNKNOWN),
        row.level,
        UNKNOWN if row.images is None else str(row.images),
        *splits,
        str(row.done),
        UNKNOWN if row.to_make is None else str(row.to_make),
        _time(row.seconds),
        UNKNOWN if row.usd is None else f"${row.usd:.2f}",
        UNKNOWN if row.n_bytes is None else _bytes(row.n_bytes),
    ]


def _by_source(rows: Sequence[PlanRow]) -> list[PlanRow]:
    grouped = []
    for source, members in groupby(rows, key=lambda row: row.source):
        of_source = list(members)
        generators = {row.generator for row in of_source}
        grouped.append(_sum(of_source, source, generators.pop() if len(generators) == 1 else f"{len(generators)}"))
    return grouped


def _sum(rows: Sequence[PlanRow], source: str, generator: str) -> PlanRow:
    known = all(row.splits for row in rows)
    splits: Mapping[str, float] = {name: sum(row.splits[name] for row in rows) for name in SPLITS} if known else {}
    return replace(
        rows[0],
        source=source,
        generator=generator or " ",
        level="",
        images=_total([row.images for row in rows]),
        splits=splits,
        exact=all(row.exact for row in rows),
        done=sum(row.done for row in rows),
        to_make=_total([row.to_make for row in rows]),
        seconds=_total([row.seconds for row in rows]),
        usd=_total([row.usd for row in rows]),
        n_bytes=_total([row.n_bytes for row in rows]),
    )


def _total(values: Sequence[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(values) else None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _bytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.1f} GB"
