from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from forgery_det.reporting.data import Bar, Histogram, HistogramSeries, ReportData, Threshold
from forgery_det.reporting.figures import MAX_BARS, comparison, generators, histogram, pictures, prompt_length, roc
from forgery_det.reporting.style import INK, Picture


def texts(svg: str) -> list[str]:
    return [
        "".join(element.itertext()).strip()
        for element in ElementTree.fromstring(svg).iter()
        if element.tag.endswith("text")
    ]


@pytest.fixture(scope="module")
def drawn(report_data: ReportData) -> tuple[Picture, ...]:
    return pictures(report_data)


def test_every_figure_is_xml_with_readable_text(drawn: tuple[Picture, ...]) -> None:
    assert [picture.name for picture in drawn] == ["comparison", "roc", "generators", "histogram", "prompt_length"]
    for picture in drawn:
        assert len(texts(picture.svg)) > 5
        # nothing that would be different tomorrow
        assert "<dc:date>" not in picture.svg
        assert matplotlib.__version__ not in picture.svg


def test_inline_figures_take_the_ink_of_the_page_and_a_free_size(drawn: tuple[Picture, ...]) -> None:
    picture = drawn[1]
    inline = picture.inline()
    ElementTree.fromstring(inline)
    head = inline[: inline.index(">")]
    assert INK in picture.svg
    assert INK not in inline
    assert "currentColor" in inline
    assert "viewBox" in head
    assert "width=" not in head
    assert "height=" not in head
    assert 'class="paper"' not in inline


def test_drawing_leaves_global_settings_alone(report_data: ReportData) -> None:
    before = dict(matplotlib.rcParams)
    assert prompt_length(report_data.groups[2], report_data.records) is not None
    assert dict(matplotlib.rcParams) == before


def test_nothing_to_draw_is_no_figure(report_data: ReportData) -> None:
    generator, words = report_data.groups[1], report_data.groups[2]
    assert comparison([Bar("detector", "detector", None, None, None, 3)]) is None
    assert roc(()) is None
    assert generators(generator, ()) is None
    assert histogram(None, ()) is None
    assert prompt_length(words, ()) is None


def test_a_figure_leaves_out_what_is_not_estimable(report_data: ReportData) -> None:
    picture = generators(report_data.groups[1], report_data.records)
    assert picture is not None
    shown = texts(picture.svg)
    assert "qwen-image (35)" in shown
    assert not [text for text in shown if text.startswith("hidream-i1")]


def test_too_many_generators_are_left_to_the_table(report_data: ReportData) -> None:
    group = report_data.groups[1]
    info, record = group.slices[0], next(r for r in report_data.records if r.slice == group.slices[0].key)
    many = [dataclasses.replace(info, key=f"generator={i}", name=str(i)) for i in range(MAX_BARS + 1)]
    records = [dataclasses.replace(record, slice=item.key) for item in many]
    assert generators(dataclasses.replace(group, slices=tuple(many)), records) is None
    assert generators(dataclasses.replace(group, slices=tuple(many[:-1])), records) is not None


def test_dollar_signs_in_names_are_no_formula(report_data: ReportData) -> None:
    group = report_data.groups[1]
    info = dataclasses.replace(group.slices[0], name="a $\\frac{1}{$ b 绘画")
    picture = generators(dataclasses.replace(group, slices=(info,)), report_data.records)
    assert picture is not None
    assert "a $\\frac{1}{$ b 绘画 (60)" in texts(picture.svg)


@pytest.mark.parametrize(("threshold", "drawn"), [(0.5, True), (9.0, False), (None, False), (float("inf"), False)])
def test_thresholds_outside_the_histogram_are_not_drawn(threshold: float | None, drawn: bool) -> None:
    values = Histogram((0.0, 0.5, 1.0), (HistogramSeries("real", "real", (3, 1)),))
    picture = histogram(values, [Threshold("5 % FPR", threshold, "val")])
    assert picture is not None
    assert ("threshold, 5 % FPR" in texts(picture.svg)) is drawn


def test_histogram_draws_shares_of_each_group() -> None:
    # 3 of 4 in the first bin: the highest bar ends at 75 %, so the axis shows 60 and not 100
    values = Histogram((0.0, 0.5, 1.0), (HistogramSeries("real", "real", (3, 1)),))
    picture = histogram(values, [])
    assert picture is not None
    shown = texts(picture.svg)
    numbers = [float(t) for t in shown if re.fullmatch(r"\d+", t)]
    assert 60.0 in numbers
    assert max(numbers) < 100.0
