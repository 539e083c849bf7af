"""From the findings of a comparison to its page: summary, leaderboard and tests of each dataset, mean ranks, trace."""

from __future__ import annotations

from collections.abc import Sequence

from forgery_det.core.runs import versions
from forgery_det.evaluation.compare_board import Board, Findings, Standing
from forgery_det.evaluation.compare_pairs import Pair
from forgery_det.evaluation.compare_words import compare_verdict
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.ranks import CriticalDifference
from forgery_det.reporting.comparison_figures import Interval, difference_figure, leaderboard_figure, rank_figure
from forgery_det.reporting.page import Page
from forgery_det.reporting.sections import NOT_ESTIMABLE, Cell, Section, SectionTable
from forgery_det.reporting.style import Picture
from forgery_det.reporting.text import number

_POINTS = {"fpr_1pct": "1 % FPR", "fpr_5pct": "5 % FPR", "balanced": "the balanced threshold"}


def compare_page(findings: Findings) -> Page:
    """Return what the page of a comparison shows."""
    sections: list[Section] = []
    figures: dict[str, tuple[Picture, ...]] = {}
    if findings.ranks is not None:
        sections.append(_ranks(findings.ranks))
        figures["ranks"] = (_rank_picture(findings.ranks),)
    for index, board in enumerate(findings.boards):
        section, pictures = _board(board, findings, f"board-{index + 1}")
        sections.append(section)
        figures[section.name] = pictures
    config = findings.config
    facts = {
        "Detectors": str(len({line.name for board in findings.boards for line in board.standings})),
        "Datasets": str(len(findings.boards)),
        "Images": "all generators" if config["images"] == "overall" else config["images"],
        "Level": f"{config['alpha']:g} over all comparisons (Holm)",
    }
    return Page(
        "Comparison of detectors", facts, compare_verdict(findings), tuple(sections), figures, config, versions()
    )


def p_text(p_value: float | None) -> str:
    """Return a p-value as people read it.

    Example:
        >>> p_text(0.00002), p_text(0.0312), p_text(None)
        ('< 0.001', '0.031', '-')
    """
    if p_value is None:
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def estimate_cell(found: Estimate | Comparison, value: float | None, *, signed: bool = False) -> Cell:
    """Return a cell with value, interval and note."""
    if value is None:
        return Cell(NOT_ESTIMABLE, "", found.note)
    interval = (
        "" if found.ci_low is None or found.ci_high is None else f"{number(found.ci_low)}, {number(found.ci_high)}"
    )
    return Cell(f"{value:+.3f}" if signed else number(value), interval, found.note)


def _board(board: Board, findings: Findings, name: str) -> tuple[Section, tuple[Picture, ...]]:
    label_N = board.common.labels
    n_generated = int(label_N.sum())
    point = findings.config["operating_point"]
    explanation = (
        f"{len(label_N) - n_generated} real and {n_generated} generated images of "
        f"{board.common.frame['source_id'].n_unique()} source_ids, the same for every detector. "
        "Detectors that share a letter are not shown to differ."
    )
    tables = [_leaderboard(board, point)]
    if board.pairs:
        tables += [_ranking_tests(board), _decision_tests(board, point)]
    section = Section(name, f"Leaderboard: {board.dataset}", explanation, tuple(tables))
    names = board.common.names
    differences = [
        Interval(f"{names[p.first]} less {names[p.second]}", p.delong.difference, p.delong.ci_low, p.delong.ci_high)
        for p in board.pairs
    ]
    standings = [
        Interval(f"{line.name} ({line.letters})", line.auroc.value, line.auroc.ci_low, line.auroc.ci_high)
        for line in board.standings
    ]
    pictures = (leaderboard_figure(f"{name}-auroc", standings), difference_figure(f"{name}-differences", differences))
    return section, tuple(picture for picture in pictures if picture is not None)


def _leaderboard(board: Board, point: str) -> SectionTable:
    words = _POINTS.get(point, point)
    rows = tuple((line.name, _standing_cells(line, len(board.common.labels))) for line in board.standings)
    return SectionTable(
        "Leaderboard",
        ("detector", "groups", "AUROC", f"TPR at {words}", f"FPR reached at {words}", "n", "left out", "not scored"),
        rows,
        "Sorted by AUROC, with 95 % intervals by resampling source_ids. The intervals of two detectors may overlap "
        "although they differ: they saw the same images, and the tests below use that. Thresholds come from val.",
    )


def _standing_cells(line: Standing, n: int) -> tuple[Cell, ...]:
    estimates = (estimate_cell(found, found.value) for found in (line.auroc, line.tpr, line.fpr))
    return (Cell(line.letters), *estimates, Cell(str(n)), Cell(str(line.left_out)), Cell(str(line.n_bad)))


def _pair_name(board: Board, pair: Pair) -> str:
    return f"{board.common.names[pair.first]} less {board.common.names[pair.second]}"


def _ranking_tests(board: Board) -> SectionTable:
    rows = tuple((_pair_name(board, pair), _ranking_cells(pair)) for pair in board.pairs)
    return SectionTable(
        "Do they rank images differently?",
        ("pair", "AUROC difference", "p (DeLong)", "adjusted p", "difference by bootstrap", "p", "adjusted p"),
        rows,
        "Paired DeLong over source_ids decides the groups; the bootstrap is a second opinion, whose p cannot be very "
        "small because its replicates are counted. Adjusted: Holm over all comparisons on this page.",
    )


def _ranking_cells(pair: Pair) -> tuple[Cell, ...]:
    return (
        estimate_cell(pair.delong, pair.delong.difference, signed=True),
        Cell(p_text(pair.delong.p_value)),
        Cell(p_text(pair.holm_delong)),
        estimate_cell(pair.bootstrap, pair.bootstrap.difference, signed=True),
        Cell(p_text(pair.bootstrap.p_value)),
        Cell(p_text(pair.holm_bootstrap)),
    )


def _decision_tests(board: Board, point: str) -> SectionTable:
    rows = tuple((_pair_name(board, pair), _decision_cells(pair)) for pair in board.pairs)
    return SectionTable(
        f"Do they decide differently? ({_POINTS.get(point, point)}, McNemar)",
        ("pair", "only the first is right", "only the second is right", "p", "adjusted p"),
        rows,
        "Images that exactly one of the two decides rightly, each detector at its own threshold from val. Images of "
        "one source_id count together. Ranking and threshold are mixed here: one that missed its FPR shows up.",
    )


def _decision_cells(pair: Pair) -> tuple[Cell, ...]:
    found = pair.decisions
    if found is None:
        return (Cell(NOT_ESTIMABLE, "", "no threshold from val"), Cell("-"), Cell("-"), Cell("-"))
    counts = (Cell(str(found.only_first)), Cell(str(found.only_second)))
    return (*counts, Cell(p_text(found.p_value)), Cell(p_text(pair.holm_decisions)))


def _ranks(ranks: CriticalDifference) -> Section:
    groups = {name: [index for index, members in enumerate(ranks.groups) if name in members] for name in ranks.names}
    rows = tuple(
        (name, (Cell(f"{rank:.2f}"), Cell(_letters(groups[name]))))
        for name, rank in zip(ranks.names, ranks.mean_rank, strict=True)
    )
    table = SectionTable("Mean ranks", ("detector", "mean rank", "groups"), rows)
    return Section(
        "ranks",
        f"Over {ranks.n_datasets} datasets",
        f"Each dataset ranks the detectors by AUROC (1 = best). Friedman's test that all are alike: p = "
        f"{p_text(ranks.p_value)}. Mean ranks that differ by at least {ranks.critical_difference:.2f} (Nemenyi) belong "
        "to different detectors. Only ranks count here, not by how much a detector wins.",
        (table,),
    )


def _rank_picture(ranks: CriticalDifference) -> Picture:
    return rank_figure(ranks.names, ranks.mean_rank, ranks.critical_difference, ranks.groups)


def _letters(positions: Sequence[int]) -> str:
    return "".join(chr(ord("a") + position) for position in positions)
