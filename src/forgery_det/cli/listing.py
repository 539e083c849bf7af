"""`forgery-det list`: the names that the registries and folders know."""

from __future__ import annotations

from typing import Literal

from rich.console import Console
from rich.table import Table

from forgery_det.core.errors import ConfigError

Kind = Literal["detectors", "recipes", "metrics", "audits", "perturbations", "protocols", "benchmarks"]


def list_names(kind: Kind, markdown: bool = False, measure: bool = False) -> int:
    """Print the known names of one kind with what they are.

    Args:
        kind: detectors, recipes, metrics, audits, perturbations, protocols or benchmarks (of `safety`).
        markdown: detectors only: the tables in Markdown, as in docs/detectors.md
        measure: detectors only: measure time and memory of each on this machine; takes minutes and gigabytes
    """
    if kind == "detectors":
        # Needs torch, which the other kinds do without.
        from forgery_det.cli.detector_list import print_detectors

        return print_detectors(markdown, measure)
    if markdown or measure:
        raise ConfigError(f"Expected `markdown` and `measure` with detectors, got them with {kind}.")
    table = Table("name", "what it is", box=None, pad_edge=False)
    for name, summary in _ROWS[kind]():
        table.add_row(name, summary)
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


def _perturbations() -> list[tuple[str, str]]:
    from forgery_det.transforms.perturb import PERTURBATIONS

    rows = []
    for name in PERTURBATIONS:
        found = PERTURBATIONS.get(name)
        steps = (f"{severity}: {found.describe(severity) or 'nothing to set'}" for severity in found.severities)
        rows.append((name, f"{found.summary} ({'; '.join(steps)})"))
    return rows


def _protocols() -> list[tuple[str, str]]:
    from forgery_det.evaluation.protocols.registry import PROTOCOLS
    from forgery_det.evaluation.protocols.run import option_names

    rows = []
    for name in PROTOCOLS:
        protocol = PROTOCOLS.get(name)
        options = ", ".join(option_names(protocol))
        summary = (protocol.__doc__ or "").splitlines()[0]
        rows.append((name, f"{summary} Options: {options}." if options else summary))
    return rows


def _benchmarks() -> list[tuple[str, str]]:
    from forgery_det.safety.benchmarks import benchmark_sets

    rows = []
    for name, known in benchmark_sets().items():
        count = "" if known.n_prompts is None else f", {known.n_prompts} prompts"
        where = known.dataset or known.homepage
        rows.append(
            (name, f"{known.title} ({known.language}{count}; access: {known.access}; {where}). {known.citation}")
        )
    return rows


_ROWS = {
    "recipes": _recipes,
    "metrics": _metrics,
    "audits": _audits,
    "perturbations": _perturbations,
    "protocols": _protocols,
    "benchmarks": _benchmarks,
}
