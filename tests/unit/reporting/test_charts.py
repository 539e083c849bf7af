from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from forgery_det.reporting.charts import COLOURS, MAX_CELLS, MAX_SERIES, chart, section_pictures
from forgery_det.reporting.data import ReportData
from forgery_det.reporting.sections import Cell, CurveChart, HeatMapChart, Section, SectionTable, Series
from forgery_det.reporting.style import INK, Picture
from forgery_det.reporting.write import write_report

HOSTILE = "a <b>&$x$ | [x](http://evil)"

CURVES = CurveChart(
    "curves", "Curves", "Drawn with intervals.", "words (log scale)", "AUROC",
    (
        Series("diffusion", (10.0, 40.0, 100.0), (0.9, 0.8, None), (0.85, 0.7, None), (0.95, 0.9, None)),
        Series("mllm", (12.0, 45.0, 110.0), (0.7, 0.6, 0.55), (0.6, None, 0.4), (0.8, None, 0.7)),
        Series(HOSTILE, (11.0,), (0.5,)),
    ),
    log_x=True, reference_y=0.5, marks_x=((77.0, "limit"),),
)  # fmt: skip
HEAT = HeatMapChart(
    "heat", "Matrix", "Trained on rows.", "trained on", "tested on", ("sd", "flux", HOSTILE), ("sd", "janus"),
    ((0.98, 0.61), (0.5, None), (0.2, 1.7)),
)  # fmt: skip


def texts(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter()
    return ["".join(e.itertext()).strip() for e in elements if e.tag.endswith("text")]


def drawn(values: CurveChart | HeatMapChart) -> Picture:
    picture = chart(values)
    assert picture is not None
    return picture


def test_curves_name_axes_lines_and_marks() -> None:
    shown = texts(drawn(CURVES).svg)
    assert {"words (log scale)", "AUROC", "diffusion", "mllm", HOSTILE, "limit"} <= set(shown)
    assert "16" in shown  # base 2, plain numbers
    assert "64" in shown


def test_a_single_line_needs_no_legend() -> None:
    alone = dataclasses.replace(CURVES, series=CURVES.series[:1], marks_x=())
    assert "diffusion" not in texts(drawn(alone).svg)


def test_lines_differ_in_more_than_colour() -> None:
    svg = drawn(CURVES).svg
    lines = [style for style in re.findall(r'style="(fill: none;[^"]+)"', svg) if "stroke-width: 1.8" in style]
    dashes = {COLOURS[i]: [s for s in lines if COLOURS[i] in s] for i in (0, 1)}
    assert all(dashes.values())
    assert "stroke-dasharray" not in dashes[COLOURS[0]][0]
    assert "stroke-dasharray" in dashes[COLOURS[1]][0]


def test_intervals_are_drawn_only_where_they_are() -> None:
    with_ends = drawn(CURVES).svg
    bare = tuple(dataclasses.replace(series, low=(), high=()) for series in CURVES.series)
    without = drawn(dataclasses.replace(CURVES, series=bare))
    # four bars: two of the first line, and two of the second less the one without ends
    assert len(re.findall("stroke-opacity: 0.75", with_ends)) == 4
    assert "stroke-opacity: 0.75" not in without.svg


def test_a_dense_line_has_a_band_and_no_markers() -> None:
    x = tuple(float(i + 1) for i in range(50))
    dense = Series("fit", x, x, tuple(v - 1 for v in x), tuple(v + 1 for v in x))
    svg = drawn(dataclasses.replace(CURVES, series=(dense,), marks_x=())).svg
    assert "FillBetweenPolyCollection" in svg
    assert "stroke-opacity: 0.75" not in svg


@pytest.mark.parametrize("values", [CURVES, HEAT])
def test_the_same_chart_is_the_same_bytes_and_fits_the_page(values: CurveChart | HeatMapChart) -> None:
    picture = drawn(values)
    assert picture.svg == drawn(values).svg
    inline = picture.inline()
    ElementTree.fromstring(inline)
    assert INK not in inline
    assert "width=" not in inline[: inline.index(">")]
    assert "<b>" not in inline


def test_named_ticks_replace_numbers() -> None:
    named = dataclasses.replace(CURVES, log_x=False, x_ticks=((10.0, "2024-H1"), (40.0, "2024-H2")))
    shown = texts(drawn(named).svg)
    assert {"2024-H1", "2024-H2"} <= set(shown)
    assert "20" not in shown


def test_only_long_names_are_tilted() -> None:
    short = dataclasses.replace(CURVES, log_x=False, x_ticks=tuple((float(i), str(i)) for i in range(9)))
    assert "rotate(-40" not in drawn(short).svg
    long = dataclasses.replace(short, x_ticks=tuple((float(i), f"severity {i}") for i in range(9)))
    assert "rotate(-40" in drawn(long).svg
    assert "rotate(-40" in drawn(dataclasses.replace(HEAT, columns=("stable-diffusion-3.5", HOSTILE + HOSTILE))).svg
    assert "rotate(-40" not in drawn(dataclasses.replace(HEAT, columns=("1", "2"))).svg


def test_heat_map_writes_its_values() -> None:
    shown = texts(drawn(HEAT).svg)
    assert {"0.98", "0.61", "0.50", "-", "trained on", "tested on", "janus"} <= set(shown)
    assert "1.70" in shown  # outside the colour scale, yet told


def test_nothing_to_draw_is_no_picture() -> None:
    assert chart(dataclasses.replace(CURVES, series=())) is None
    assert chart(dataclasses.replace(CURVES, series=(Series("none", (1.0, 2.0), (None, None)),))) is None
    assert chart(dataclasses.replace(HEAT, values=((None, None),), rows=("sd",))) is None
    assert chart(dataclasses.replace(HEAT, values=(), rows=())) is None


def test_too_much_is_left_to_the_table() -> None:
    many = tuple(dataclasses.replace(CURVES.series[0], name=str(i)) for i in range(MAX_SERIES + 1))
    assert chart(dataclasses.replace(CURVES, series=many)) is None
    assert chart(dataclasses.replace(CURVES, series=many[:-1])) is not None
    wide = tuple(str(i) for i in range(MAX_CELLS + 1))
    assert chart(dataclasses.replace(HEAT, rows=("sd",), columns=wide, values=((0.5,) * len(wide),))) is None


def test_sections_stand_after_the_slices_with_tables_footnotes_and_figures(
    report_data: ReportData, tmp_path: Path
) -> None:
    note = "not estimable (n = 1 real images, fewer than 5)"
    table = SectionTable(
        "By <i>length</i>", ("row", "n", "AUROC"),
        (
            (HOSTILE, (Cell("7"), Cell("0.912", "0.850, 0.961"))),
            ("short", (Cell("1"), Cell("not estimable", note=note))),
        ),
        "Words of the table.",
    )  # fmt: skip
    empty = dataclasses.replace(CURVES, name="nothing", series=())
    section = Section("prompt_length", "Prompt length", "What was asked.", (table,), (CURVES, HEAT, empty))
    data = dataclasses.replace(report_data, sections=(section,))
    assert [picture.name for picture in section_pictures(data.sections)] == ["curves", "heat"]
    write_report(data, tmp_path)
    html = (tmp_path / "report.html").read_text()
    start = html.index('<section class="protocol" id="protocol-prompt_length">')
    assert html.index('id="tables"') < start < html.index('id="gallery"')
    body = html[start : html.index('id="gallery"')]
    assert "By &lt;i&gt;length&lt;/i&gt;" in body
    assert "a &lt;b&gt;&amp;$x$" in body
    assert "<small>0.850, 0.961</small>" in body
    assert 'class="missing">not estimable<sup>1</sup>' in body
    assert f"<li>{note}</li>" in body
    assert body.count("<svg") == 2
    assert 'href="#protocol-prompt_length"' in html[: html.index('id="verdict"')]
    assert {"curves.svg", "heat.svg"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    # Figures of a section stand in the section alone.
    assert 'id="curves-' not in html[html.index('id="figures"') : html.index('id="tables"')]
    text = (tmp_path / "report.md").read_text()
    part = text[text.index("## Prompt length") : text.index("## Worst mistakes")]
    assert "0.912 [0.850, 0.961]".replace("[", r"\[").replace("]", r"\]") in part
    assert "](http" not in part


@pytest.mark.slow
def test_two_figures_may_not_share_a_name(report_data: ReportData, tmp_path: Path) -> None:
    section = Section("one", "One", "", (), (CURVES, CURVES))
    with pytest.raises(AssertionError, match="two figures with one name"):
        write_report(dataclasses.replace(report_data, sections=(section,)), tmp_path)
