"""`forgery-det list`: the names that the registries and folders know."""

from __future__ import annotations

from typing import Literal

from rich.console import Console
from rich.table import Table

from forgery_det.core.errors import ConfigError

Kind = Literal["detectors", "recipes", "metrics", "audits"]


def list_names(kind: Kind, markdown: bool = False, measure: bool = False) -> int:
    """Print the known names of one kind with what they are.

    Args:
        kind: detectors, recipes, metrics or audits.
        markdown: detectors only: the full table in Markdown, as in docs/detectors.md
        measure: detectors only: time each on this machine, at full size; takes minutes and gigabytes
    """
    if kind == "detectors":
        return _print_detectors(markdown, measure)
    if markdown or measure:
        raise ConfigError(f"Expected `markdown` and `measure` with detectors, got them with {kind}.")
    table = Table("name", "what it is", box=None, pad_edge=False)
    for name, summary in _ROWS[kind]():
        table.add_row(name, summary)
    Console().print(table)
    return 0


def _print_detectors(markdown: bool, measure: bool) -> int:
    from forgery_det.detectors.table import detector_rows, markdown_table

    rows = list(detector_rows(measure=measure))
    if markdown:
        print(markdown_table(rows))
        return 0
    headings = ["name", "year", "M values", "M learn", "what it looks at", "input"] + ["ms"] * measure
    table = Table(*headings, box=None, pad_edge=False)
    for row in rows:
        sizes = (f"{row.n_parameters / 1e6:.1f}", f"{row.n_learning / 1e6:.3f}")
        timed = [] if row.time_ms is None else [f"{row.time_ms:.0f}"]
        table.add_row(row.card.name, str(row.card.year), *sizes, row.card.summary, row.card.input, *timed)
    Console().print(table)
    return 0


def _recipes() -> list[tuple[str, str]]:
    from forgery_det.recipes.load import list_recipes

    return [(recipe.name, recipe.description) for recipe in list_recipes()]


def _metrics() -> list[tuple[str, str]]:
    from forgery_det.metrics.registry import METRICS

    return [(name, METRICS[name].description) for name in sorted(METRICS)]


def _audits() -> list[tuple[str, str]]:
    from forgery_det.audits.registry import AUDITS

    return [(name, (AUDITS.get(name).__doc__ or "").splitlines()[0]) for name in AUDITS]


_ROWS = {"recipes": _recipes, "metrics": _metrics, "audits": _audits}
