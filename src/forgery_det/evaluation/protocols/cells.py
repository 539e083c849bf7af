"""Estimates, records and table cells: one number, said the same way in `results.parquet` and in the report."""

from __future__ import annotations

from forgery_det.core.types import MetricRecord
from forgery_det.metrics.comparison import Comparison
from forgery_det.reporting.sections import NOT_ESTIMABLE, Cell

DIFFERENCE, DIFFERENCE_P, DIFFERENCE_P_HOLM = "auroc_difference", "auroc_difference_p", "auroc_difference_p_holm"
"""Metric names of a difference of two AUROCs, of its p-value, and of that after Holm's correction."""


def record_cell(record: MetricRecord, digits: int = 3, *, with_note: bool = True) -> Cell:
    """Return the cell of a record: value and interval, or why there is none.

    Args:
        record: What was computed.
        digits: After the decimal point.
        with_note: Show the note of a value too; that of a missing value is always shown.

    Example:
        >>> record_cell(MetricRecord("auroc", "overall", 0.9, 0.85, 0.94, 80, True))
        Cell(text='0.900', interval='0.850, 0.940', note='')
        >>> record_cell(MetricRecord("auroc", "overall", None, None, None, 1, True, "not estimable (n = 1)")).text
        'not estimable'
    """
    if record.value is None:
        return Cell(NOT_ESTIMABLE, note=record.note or f"not estimable (n = {record.n})")
    interval = ""
    if record.ci_low is not None and record.ci_high is not None:
        interval = f"{record.ci_low:.{digits}f}, {record.ci_high:.{digits}f}"
    return Cell(f"{record.value:.{digits}f}", interval, record.note if with_note else "")


def p_cell(record: MetricRecord) -> Cell:
    """Return the cell of a p-value; below 0.001 it says only that.

    Example:
        >>> p_cell(MetricRecord("auroc_difference_p", "overall", 0.00001, None, None, 80, None)).text
        '< 0.001'
    """
    if record.value is None or record.value >= 0.001:
        return record_cell(record)
    return Cell("< 0.001", note=record.note)


def difference_records(key: str, comparison: Comparison) -> tuple[MetricRecord, MetricRecord]:
    """Return the difference of two AUROCs and its p-value as rows of `results.parquet`."""
    value = MetricRecord(
        DIFFERENCE, key, comparison.difference, comparison.ci_low, comparison.ci_high, comparison.n, None,
        comparison.note,
    )  # fmt: skip
    return value, p_record(DIFFERENCE_P, key, comparison.p_value, comparison.n, comparison.note)


def p_record(metric: str, key: str, p_value: float | None, n: int, note: str = "") -> MetricRecord:
    """Return the row of `results.parquet` of a p-value."""
    if p_value is None and not note:
        note = f"not estimable (n = {n})"
    return MetricRecord(metric, key, p_value, None, None, n, None, note)


def words_of(record: MetricRecord, digits: int = 3) -> str:
    """Return value, interval and n in a sentence's form.

    Example:
        >>> words_of(MetricRecord("auroc", "overall", 0.9, 0.85, 0.94, 80, True))
        '0.900, 95 % interval 0.850 to 0.940, n = 80'
    """
    interval = ""
    if record.ci_low is not None and record.ci_high is not None:
        interval = f", 95 % interval {record.ci_low:.{digits}f} to {record.ci_high:.{digits}f}"
    return f"{record.value:.{digits}f}{interval}, n = {record.n}"
