"""The short page of `compare` and `matrix`, and the figures of a comparison."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from forgery_det.reporting.comparison_figures import Interval, difference_figure, leaderboard_figure, rank_figure
from forgery_det.reporting.data import Caveat, Verdict
from forgery_det.reporting.page import Page, write_page
from forgery_det.reporting.sections import NOT_ESTIMABLE, Cell, HeatMapChart, Section, SectionTable

ROWS = [Interval("rine", 0.9, 0.85, 0.94), Interval("npr", 0.6, 0.45, 0.7), Interval("broken", None, None, None)]


def make_page(hostile: str) -> Page:
    cells = (Cell("0.900", "0.850, 0.940"), Cell(NOT_ESTIMABLE, "", hostile))
    table = SectionTable("Leaderboard", ("detector", "AUROC", "TPR"), ((hostile, cells),), hostile)
    heat = HeatMapChart("heat", "Heat", "Caption", "trained on", "tested on", ("x",), ("y", hostile), ((0.7, None),))
    section = Section("board-1", f"On {hostile}", hostile, (table,), (heat,))
    figure = leaderboard_figure("auroc", [*ROWS, Interval(hostile, 0.5, None, None)])
    assert figure is not None
    verdict = Verdict("doubt", hostile, (Caveat("problem", hostile), Caveat("ok", "fine")))
    return Page(
        hostile, {"Datasets": hostile}, verdict, (section,), {"board-1": (figure,)}, {"out": hostile}, {"torch": "2"}
    )


def test_texts_from_outside_are_escaped_in_both_pages(tmp_path: Path, hostile: str) -> None:
    write_page(make_page(hostile), tmp_path, "compare")
    page, text = ((tmp_path / f"compare.{suffix}").read_text() for suffix in ("html", "md"))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in text
    assert "[x](" not in text
    assert not re.search(r'(src|href)="https?:', page)
    assert "default-src 'none'" in page


def test_the_page_shows_values_notes_and_figures(tmp_path: Path, hostile: str) -> None:
    paths = write_page(make_page(hostile), tmp_path, "compare")
    assert [path.name for path in paths] == ["compare.html", "compare.md", "auroc.svg", "heat.svg"]
    page = paths[0].read_text()
    assert page.count("<figure>") == 2
    assert "0.900<small>0.850, 0.940</small>" in page
    assert 'class="missing">not estimable<sup>1</sup>' in page
    assert "Read with doubt" in page
    table = [line for line in paths[1].read_text().splitlines() if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in table} == {4}


def test_an_old_figure_does_not_stay_and_equal_pages_are_equal_bytes(tmp_path: Path, hostile: str) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("<svg/>")
    first = [path.read_bytes() for path in write_page(make_page(hostile), tmp_path, "compare")]
    assert not (tmp_path / "figures" / "old.svg").exists()
    assert [path.read_bytes() for path in write_page(make_page(hostile), tmp_path, "compare")] == first


def test_figures_name_what_they_draw() -> None:
    auroc = leaderboard_figure("auroc", ROWS)
    assert auroc is not None
    texts = [element.text for element in ET.fromstring(auroc.svg).iter() if element.tag.endswith("text")]
    assert "rine" in texts
    assert "broken" not in texts
    assert difference_figure("d", ROWS[2:]) is None
    assert leaderboard_figure("a", ROWS * 40) is None


def test_the_rank_figure_has_a_bar_for_each_group_of_several() -> None:
    picture = rank_figure(["a", "b", "c"], [1.0, 2.0, 3.0], 1.5, [("a", "b"), ("b", "c")])
    alone = rank_figure(["a", "b", "c"], [1.0, 2.0, 3.0], 0.5, [("a",), ("b",), ("c",)])
    assert picture.svg.count("#d8631b") == 2
    assert alone.svg.count("#d8631b") == 0
    assert "critical difference 1.50" in picture.svg


@pytest.mark.parametrize("low", [0.4, 0.6])
def test_a_marker_is_filled_only_where_the_interval_is_clear_of_the_line(low: float) -> None:
    picture = leaderboard_figure("auroc", [Interval("x", 0.7, low, 0.8)])
    assert picture is not None
    assert ("fill: #2a7fbf" in picture.svg) == (low > 0.5)
