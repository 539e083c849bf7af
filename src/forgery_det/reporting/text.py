"""Numbers and untrusted text as people read them: one rounding, one word for what is missing, Markdown escaped."""

from __future__ import annotations

import re

from forgery_det.core.types import MetricRecord
from forgery_det.reporting.data import Bar

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~&@:-])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for a table, a dash for None.

    Example:
        >>> number(0.98765), number(None), number(1234.5, 1)
        ('0.988', '-', '1234.5')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(item: MetricRecord | Bar) -> str:
    """Return `0.941 [0.902, 0.971]`, or the note when there is no value.

    Example:
        >>> with_interval(MetricRecord("auroc", "overall", 0.9, 0.8, 0.95, 40, True))
        '0.900 [0.800, 0.950]'
        >>> with_interval(MetricRecord("auroc", "overall", None, None, None, 1, True, "not estimable (n = 1)"))
        'not estimable (n = 1)'
    """
    if item.value is None:
        note = item.note if isinstance(item, MetricRecord) else ""
        return note or f"not estimable (n = {item.n})"
    if item.ci_low is None or item.ci_high is None:
        return number(item.value)
    return f"{number(item.value)} [{number(item.ci_low)}, {number(item.ci_high)}]"


def plain(text: str, limit: int | None = None) -> str:
    r"""Return untrusted text on one line: control and direction marks become spaces, long text is cut with `…`.

    Example:
        >>> plain("a\nb\x1b[31m", limit=20)
        'a b [31m'
        >>> plain("abcdefgh", limit=5)
        'abcd…'
    """
    line = " ".join(_CONTROL.sub(" ", text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def markdown(text: str, limit: int | None = None) -> str:
    r"""Return untrusted text for Markdown: one line, every character that Markdown or HTML could act on escaped.

    Example:
        >>> markdown("a|b <img> [x](y)")
        'a\\|b &lt;img&gt; \\[x\\]\\(y\\)'
    """
    escaped = _MARKDOWN.sub(r"\\\1", plain(text, limit))
    # Backslashes before <, > and & are not honoured by every renderer; entities are. An @ would notify a person.
    for raw, entity in (("\\<", "&lt;"), ("\\>", "&gt;"), ("\\&", "&amp;"), ("\\@", "&#64;")):
        escaped = escaped.replace(raw, entity)
    return escaped
