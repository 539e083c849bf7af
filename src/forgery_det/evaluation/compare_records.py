"""The findings of a comparison as rows of `results.parquet`.

Slices name the dataset and the detectors: `dataset=D,detector=A` and `dataset=D,detector=A,versus=B`. A test is two
rows: `p@delong` and, adjusted over all comparisons, `p_holm@delong`.
"""

from __future__ import annotations

from collections.abc import Iterator

from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.compare_board import Board, Findings
from forgery_det.evaluation.compare_pairs import Pair
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.ranks import CriticalDifference

NO_THRESHOLD = "not estimable (a run has no threshold from val)"


def compare_records(findings: Findings) -> tuple[MetricRecord, ...]:
    """Return every number of a comparison."""
    point = findings.config["operating_point"]
    rows = [row for board in findings.boards for row in (*_standings(board, point), *_pairs(board, point))]
    if findings.ranks is not None:
        rows.extend(_ranks(findings.ranks))
    return tuple(rows)


def slice_of(dataset: str, detector: str, versus: str = "") -> str:
    """Return the slice of a detector, or of a pair, on a dataset; `,` and `=` would read as further parts.

    Example:
        >>> slice_of("samples, split test", "npr", "frozen_probe")
        'dataset=samples split test,detector=npr,versus=frozen_probe'
    """
    plain = dataset.replace(", ", " ").replace(",", "_").replace("=", "_")
    return f"dataset={plain},detector={detector}" + (f",versus={versus}" if versus else "")


def _standings(board: Board, point: str) -> Iterator[MetricRecord]:
    for line in board.standings:
        key = slice_of(board.dataset, line.name)
        for metric, found in (("auroc", line.auroc), (f"tpr@{point}", line.tpr), (f"fpr@{point}", line.fpr)):
            better = not metric.startswith("fpr")
            yield MetricRecord(metric, key, found.value, found.ci_low, found.ci_high, found.n, better, found.note)


def _pairs(board: Board, point: str) -> Iterator[MetricRecord]:
    names = board.common.names
    for pair in board.pairs:
        key = slice_of(board.dataset, names[pair.first], names[pair.second])
        yield from _test("delong", key, pair.delong, pair.holm_delong)
        yield from _test("bootstrap", key, pair.bootstrap, pair.holm_bootstrap)
        yield from _decisions(key, pair, point, len(board.common.labels))


def _test(name: str, key: str, found: Comparison, adjusted: float | None) -> Iterator[MetricRecord]:
    yield MetricRecord(
        f"auroc_difference@{name}", key, found.difference, found.ci_low, found.ci_high, found.n, True, found.note
    )
    for metric, p_value in ((f"p@{name}", found.p_value), (f"p_holm@{name}", adjusted)):
        yield MetricRecord(metric, key, p_value, None, None, found.n, None, found.note)


def _decisions(key: str, pair: Pair, point: str, n: int) -> Iterator[MetricRecord]:
    found = pair.decisions
    for metric, value in (
        ("only_first_right", None if found is None else float(found.only_first)),
        ("only_second_right", None if found is None else float(found.only_second)),
        ("p", None if found is None else found.p_value),
        ("p_holm", pair.holm_decisions),
    ):
        note = NO_THRESHOLD if found is None else ""
        yield MetricRecord(f"{metric}@mcnemar_{point}", key, value, None, None, n, None, note)


def _ranks(ranks: CriticalDifference) -> Iterator[MetricRecord]:
    for name, rank in zip(ranks.names, ranks.mean_rank, strict=True):
        yield MetricRecord("mean_rank", f"detector={name}", rank, None, None, ranks.n_datasets, False, "n is datasets")
    yield MetricRecord("p@friedman", "overall", ranks.p_value, None, None, ranks.n_datasets, None, "n is datasets")
    gap = ranks.critical_difference
    yield MetricRecord("critical_difference", "overall", gap, None, None, ranks.n_datasets, None, "n is datasets")
