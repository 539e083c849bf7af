"""`forgery-det list detectors`: every detector with its paper, size, weights and what an image costs here."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from forgery_det.cli.display import shown_progress
from forgery_det.core.progress import Progress
from forgery_det.detectors.costs import FILE_NAME, Cost, measure_cost, read_costs, write_costs
from forgery_det.detectors.registry import list_detectors
from forgery_det.detectors.table import DetectorRow, cost_table, detector_rows, markdown_table, megabytes, millions
from forgery_det.recipes.sources.base import default_cache

TABLE_FROM_COLUMNS = 140
"""A narrower terminal gets a block for each detector: ten columns would break every word."""

_LEGEND = "M values: millions of parameters, M learn: those that learn. ms, MB: an image of 512 x 512 px on one core."
_NOT_MEASURED = "Time and memory are not measured on this machine: forgery-det list detectors --measure (minutes)."


def print_detectors(markdown: bool, measure: bool) -> int:
    """Print all detectors; see `listing.list_names`."""
    costs = _measured() if measure else read_costs(default_cache() / FILE_NAME)
    rows = list(detector_rows(costs=costs))
    if markdown:
        print(markdown_table(rows))
        if measure:
            print(f"\n{cost_table(rows)}")
        return 0
    console = Console()
    if console.width >= TABLE_FROM_COLUMNS:
        console.print(_table(rows))
    else:
        for row in rows:
            _print_block(console, row)
    console.print(_LEGEND, highlight=False)
    if any(row.cost is None for row in rows):
        console.print(_NOT_MEASURED, highlight=False)
    return 0


def _measured() -> dict[str, Cost]:
    path = default_cache() / FILE_NAME
    costs: dict[str, Cost] = {}
    names = list_detectors()
    with shown_progress() as progress:
        for done, name in enumerate(names):
            progress(Progress("measuring", done, len(names), "detectors"))
            costs[name] = measure_cost(name)
            # After each one, so that an interrupted measurement keeps what it has.
            write_costs(path, read_costs(path) | costs)
        progress(Progress("measuring", len(names), len(names), "detectors"))
    return costs


def _table(rows: Sequence[DetectorRow]) -> Table:
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("M values", "M learn", "ms", "MB")]
    table = Table(
        Column("name", no_wrap=True),
        Column("year", no_wrap=True),
        *_folded(("paper", 7), ("backbone", 4), ("input", 4)),
        *numbers,
        *_folded(("official weights", 6), ("licence", 3)),
        pad_edge=False,
        box=None,
        expand=True,
    )
    for row in rows:
        card = row.card
        cells = [card.name, str(card.year), card.paper, card.backbone, card.input, *_numbers(row)]
        table.add_row(*map(escape, (*cells, card.official_weights or "-", card.licence or "-")))
    return table


def _folded(*columns: tuple[str, int]) -> list[Column]:
    # Folded, not cut off: half an address or half a licence is worth nothing.
    return [Column(name, ratio=ratio, overflow="fold") for name, ratio in columns]


def _print_block(console: Console, row: DetectorRow) -> None:
    card = row.card
    values, learn, time_ms, memory = _numbers(row)
    size = f"{values} M values, {learn} M learn"
    console.print(f"[bold]{card.name}[/] ({card.year}): {escape(card.summary)}", highlight=False)
    weights = f"{card.official_weights} ({card.licence})" if card.official_weights else "none"
    block = Table(Column("", no_wrap=True, style="dim"), Column("", overflow="fold"), box=None, show_header=False)
    for word, text in (
        ("paper", card.paper),
        ("backbone", card.backbone),
        ("input", card.input),
        ("size", size if row.cost is None else f"{size}; {time_ms} ms, {memory} MB"),
        ("weights", weights),
        ("export", f"not {card.not_exported}" if card.not_exported else "every format"),
    ):
        block.add_row(word, escape(text))
    console.print(block)
    console.print()


def _numbers(row: DetectorRow) -> tuple[str, str, str, str]:
    cost = ("-", "-") if row.cost is None else (f"{row.cost.time_ms:.0f}", megabytes(row.cost))
    return (millions(row.n_parameters), millions(row.n_learning), *cost)
