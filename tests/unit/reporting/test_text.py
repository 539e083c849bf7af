from __future__ import annotations

import pytest

from forgery_det.core.types import MetricRecord
from forgery_det.reporting.data import Bar, SliceGroup, SliceInfo
from forgery_det.reporting.text import markdown, number, plain, with_interval
from forgery_det.reporting.view import _table


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0.000"), (1.0, "1.000"), (0.9996, "1.000"), (-0.25, "-0.250")])
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_bar_without_a_value_gives_its_n() -> None:
    assert with_interval(Bar("x", "detector", None, None, None, 4)) == "not estimable (n = 4)"


def test_a_value_without_an_interval_stands_alone() -> None:
    assert with_interval(MetricRecord("prevalence", "overall", 0.25, None, None, 4, None)) == "0.250"


def test_plain_removes_what_steers_a_terminal_or_reverses_text() -> None:
    assert plain("a\x1b[2J\r\n\tb\u202egpj.exe\ufeff\x9b") == "a [2J b gpj.exe"


@pytest.mark.parametrize(
    "text", ["<b>", "a|b", "[a](b)", "![x](y)", "`rm`", "@team", "# h", "- x", "*b*", "~~s~~", "&lt;"]
)
def test_markdown_leaves_no_live_character(text: str) -> None:
    escaped = markdown(text)
    assert "<" not in escaped
    assert "@" not in escaped
    for position, character in enumerate(escaped):
        if character in "|[]()`*#!~":
            # a hash only as part of the entity for @
            assert escaped[position - 1] == "\\" or escaped[position - 1 : position + 4] == "&#64;"


def test_reasons_become_footnotes_that_are_written_once() -> None:
    infos = tuple(SliceInfo(f"generator={n}", n, "all", 9, 2) for n in ("a", "b", "c"))
    note = "not estimable (n = 2 generated images, fewer than 5)"
    records = {
        ("auroc", "generator=a"): MetricRecord("auroc", "generator=a", None, None, None, 11, True, note),
        ("auroc", "generator=b"): MetricRecord("auroc", "generator=b", None, None, None, 11, True, note),
    }
    table = _table(SliceGroup("generator", "By generator", "", ("auroc",), infos), records, {"auroc": "AUROC"})
    assert table.footnotes == (note,)
    assert [row.cells[0].text() for row in table.rows] == ["not estimable (1)", "not estimable (1)", "not computed"]
