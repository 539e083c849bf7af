"""One prediction on a loose file as a row, and rows as CSV, JSON lines or a table, written while they come.

Columns, exactly and in this order: `path, logit, score, decision, error`, and `warnings` after them where a bundle
answers. A file that could not be scored has empty numbers, an empty decision and its error. File names come from
strangers: a name that is not valid UTF-8 or holds control characters must neither stop the others nor steer the
terminal.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean

Decision = Literal["generated", "real", "uncertain", "n/a"]
COLUMNS = ("path", "logit", "score", "decision", "error")
BUNDLE_COLUMNS = (*COLUMNS, "warnings")


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """Outcome for one path.

    Args:
        path: As it was given.
        logit: Higher = generated; None with an error.
        score: Calibrated probability of being generated, in [0, 1]; None with an error.
        decision: `generated` or `real` at the operating point, `uncertain` where a bundle abstains, `n/a` without an
            operating point; None with an error.
        error: Why the file could not be scored; None when it was.
        warnings: Words of `serving.image_warnings`; only bundles give them.
    """

    path: str
    logit: float | None
    score: float | None
    decision: Decision | None
    error: str | None = None
    warnings: tuple[str, ...] = ()


def format_rows(
    rows: Iterable[PredictionRow], style: str, columns: tuple[str, ...] = COLUMNS, *, header: bool = True
) -> Iterator[str]:
    """Yield the lines of an output, without line ends, as soon as their rows come.

    Args:
        rows: Predictions.
        style: `csv` (with a header, RFC 4180 quoting), `jsonl` (one object a line, null where there is nothing) or
            `table`.
        columns: `COLUMNS` or `BUNDLE_COLUMNS`.
        header: Write the names of the columns first (CSV and table).

    Raises:
        ConfigError: Unknown style.

    Example:
        >>> rows = [PredictionRow("a.jpg", 1.5, 0.8176, "generated"), PredictionRow("b.jpg", None, None, None, "empty")]
        >>> list(format_rows(rows, "csv"))
        ['path,logit,score,decision,error', 'a.jpg,1.5,0.8176,generated,', 'b.jpg,,,,empty']
        >>> print(next(format_rows(rows, "jsonl")))
        {"path": "a.jpg", "logit": 1.5, "score": 0.8176, "decision": "generated", "error": null}
    """
    if style not in _STYLES:
        raise ConfigError(f"Unknown format {style!r}: {did_you_mean(style, _STYLES)}")
    return _STYLES[style](rows, columns, header)


def _csv(rows: Iterable[PredictionRow], columns: tuple[str, ...], header: bool) -> Iterator[str]:
    if header:
        yield _csv_line(columns)
    for row in rows:
        yield _csv_line([_csv_value(getattr(row, name)) for name in columns])


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(value)
    return repr(value) if isinstance(value, float) else _utf8(value)


def _csv_line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    # The writer quotes a field for a line break only if its own line end holds that character.
    csv.writer(buffer, lineterminator="\r\n").writerow(values)
    return buffer.getvalue().removesuffix("\r\n")


def _jsonl(rows: Iterable[PredictionRow], columns: tuple[str, ...], header: bool) -> Iterator[str]:
    del header  # every line names its fields
    for row in rows:
        # ASCII output writes what is no valid UTF-8 as \udcXX, from which Python gets the file name back.
        yield json.dumps({name: getattr(row, name) for name in columns})


def _table(rows: Iterable[PredictionRow], columns: tuple[str, ...], header: bool) -> Iterator[str]:
    last = "  warnings" if "warnings" in columns else ""
    if header:
        yield f"{'path':<48}  {'logit':>8}  {'score':>6}  {'decision':<9}  error{last}"
    for row in rows:
        logit = "" if row.logit is None else f"{row.logit:.3f}"
        score = "" if row.score is None else f"{row.score:.3f}"
        line = f"{_visible(row.path):<48}  {logit:>8}  {score:>6}  {row.decision or '':<9}  {_visible(row.error or '')}"
        if last:
            line = f"{line:<{_ERROR_END}}  {' '.join(row.warnings)}"
        yield line.rstrip()


_ERROR_END = 48 + 2 + 8 + 2 + 6 + 2 + 9 + 2 + len("error")
_STYLES: dict[str, Callable[[Iterable[PredictionRow], tuple[str, ...], bool], Iterator[str]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "table": _table,
}
FORMATS = tuple(_STYLES)
"""Names of the output formats."""


def written_path(path: str, style: str) -> str:
    r"""Return the path as a row of the style has it: CSV writes what is no valid UTF-8 with backslashes.

    Example:
        >>> written_path("caf\udce9.png", "csv"), written_path("a.png", "jsonl")
        ('caf\\udce9.png', 'a.png')
    """
    return path if style == "jsonl" else _utf8(path)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in _utf8(text))
