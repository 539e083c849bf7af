"""Short tables on the terminal: what was collected, what the audit says, what the evaluation found."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from forgery_det.audits import AuditFinding, AuditReport
from forgery_det.core.runs import RUN_NAME
from forgery_det.core.tables import RESULT_SCHEMA, RESULTS_NAME, read_table
from forgery_det.core.types import GENERATED, REAL, SPLITS
from forgery_det.evaluation.compare_records import slice_of
from forgery_det.recipes import CollectSummary

_MARKS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]", "not_estimable": "[dim]n/a[/]"}
_LEVEL_WORDS = {"fail": "failed", "warn": "warn", "pass": "pass", "not_estimable": "not estimable"}
"""Levels of a finding, the worst first."""

_SHOWN_METRICS = {
    "auroc": "AUROC",
    "balanced_accuracy@balanced": "balanced acc.",
    "tpr@fpr_5pct": "TPR, 5 % FPR",
    "fpr@fpr_5pct": "FPR reached",
}
"""Metrics of `results.parquet` that fit on a terminal; the report has them all."""

_SHOWN_GROUPS = ("overall", "paradigm=", "prompt_words=", "exposure=")


def print_collection(summary: CollectSummary) -> None:
    """Print the images of each split and class, and what was refused for which reason."""
    table = Table("split", "real", "generated", box=None, pad_edge=False)
    for split in SPLITS:
        counts = summary.counts.get(split, {})
        table.add_row(split, str(counts.get(REAL, 0)), str(counts.get(GENERATED, 0)))
    console = Console()
    state = "" if summary.changed else " (unchanged)"
    console.print(f"{summary.n_images} images in {escape(str(summary.dataset))}{state}", highlight=False)
    console.print(table)
    if summary.refused:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.refused.items()))
        console.print(f"Left out, with reasons in quarantine.parquet: {escape(reasons)}", highlight=False)


def print_audit(report: AuditReport) -> None:
    """Print a line for each audit (its worst finding, with its meaning) and each failing slice, and the verdict."""
    table = Table(
        Column("audit", no_wrap=True), Column("slice", overflow="fold"), Column("", no_wrap=True), "value",
        Column("interval", no_wrap=True), "n", box=None, pad_edge=False,
    )  # fmt: skip
    worst = _worst_findings(report)
    for finding in report.findings:
        if finding is worst[finding.name] or finding.level == "fail":
            mark = _MARKS[finding.level] + (" waived" if finding.waived else "")
            interval = _interval(finding.ci_low, finding.ci_high)
            table.add_row(finding.name, escape(finding.slice), mark, _number(finding.value), interval, str(finding.n))
    console = Console()
    console.print(table)
    for level in ("fail", "warn", "not_estimable"):
        for finding in worst.values():
            if finding.level == level:
                where = "" if finding.slice == "overall" else f" ({finding.slice})"
                told = f"- {_MARKS[level]} {finding.name}{escape(where)}: {escape(finding.detail)}"
                console.print(told, highlight=False)
    for name, reason in report.waivers.items():
        unused = " (it did not fail: the waiver can go)" if name in report.unused_waivers else ""
        console.print(f"waived: {name}: {escape(reason)}{unused}", highlight=False)
    failed = sorted({finding.name for finding in report.findings if not finding.passed})
    verdict = f"[red]FAILED[/]: {', '.join(failed)}" if failed else "passed"
    counts = report.counts()
    told = ", ".join(f"{counts[level]} {words}" for level, words in _LEVEL_WORDS.items())
    console.print(f"Audit {verdict}. Findings: {told}; all of them in audit.json.", highlight=False)


def _worst_findings(report: AuditReport) -> dict[str, AuditFinding]:
    """Return the worst finding of each audit; the overall one where several are as bad."""
    order = list(_LEVEL_WORDS)
    worst: dict[str, AuditFinding] = {}
    for finding in report.findings:
        best = worst.setdefault(finding.name, finding)
        rank, best_rank = ((order.index(one.level), one.slice != "overall") for one in (finding, best))
        if rank < best_rank:
            worst[finding.name] = finding
    return worst


def print_results(run: Path) -> None:
    """Print the main slices of `results.parquet` with their intervals."""
    results = read_table(run / RESULTS_NAME, RESULT_SCHEMA)
    shown = results.filter(
        pl.col("metric").is_in(list(_SHOWN_METRICS)),
        pl.any_horizontal(pl.col("slice").str.starts_with(group) for group in _SHOWN_GROUPS),
        ~pl.col("slice").str.contains(",", literal=True),
    )
    metrics = [metric for metric in _SHOWN_METRICS if metric in shown["metric"].to_list()]
    table = Table("slice", "n", *(_SHOWN_METRICS[metric] for metric in metrics), box=None, pad_edge=False)
    for name in shown["slice"].unique(maintain_order=True):
        rows = {row["metric"]: row for row in shown.filter(pl.col("slice") == name).iter_rows(named=True)}
        cells = [_cell(rows.get(metric)) for metric in metrics]
        table.add_row(escape(name), str(max(row["n"] for row in rows.values())), *cells)
    Console().print(table)


def print_comparison(folder: Path) -> None:
    """Print the leaderboards of `forgery-det compare`, and where the page lies."""
    results = read_table(folder / RESULTS_NAME, RESULT_SCHEMA).filter(pl.col("metric") == "auroc")
    boards = json.loads((folder / RUN_NAME).read_text(encoding="utf-8"))["facts"]["boards"]
    console = Console()
    for board in boards:
        table = Table(escape(board["dataset"]), "groups", "AUROC", box=None, pad_edge=False)
        for line in board["standings"]:
            wanted = slice_of(board["dataset"], line["detector"])
            row = results.row(by_predicate=pl.col("slice") == wanted, named=True)
            table.add_row(escape(line["detector"]), escape(line["groups"]), _cell(row))
        console.print(table)
    console.print("Detectors that share a letter are not shown to differ.", highlight=False)
    print(f"Page: {folder / 'compare.html'}")


def _cell(row: dict[str, object] | None) -> str:
    if row is None:
        return ""
    if row["value"] is None:
        return "[dim]n/a[/]"
    interval = _interval(row["ci_low"], row["ci_high"])
    return f"{_number(row['value'])}\n{interval}"


def _number(value: object) -> str:
    if not isinstance(value, int | float):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _interval(low: object, high: object) -> str:
    return f"[dim]{_number(low)}-{_number(high)}[/]" if low is not None and high is not None else ""
