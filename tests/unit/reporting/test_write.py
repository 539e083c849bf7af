from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from forgery_det.reporting.data import Gallery, ReportData, Verdict
from forgery_det.reporting.write import write_report

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Collects what a browser would see: tags, attributes, visible text; checks that tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def run(report_data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_report(report_data, run)
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_equal_data_give_equal_bytes(report_data: ReportData, run: Path, tmp_path: Path) -> None:
    for path in write_report(report_data, tmp_path):
        assert path.read_bytes() == (run / path.relative_to(tmp_path)).read_bytes(), path.name


def test_all_figures_are_written(run: Path) -> None:
    names = {path.name for path in (run / "figures").iterdir()}
    assert names == {"comparison.svg", "roc.svg", "generators.svg", "histogram.svg", "prompt_length.svg"}


def test_page_needs_no_network_and_runs_no_script(page: Page) -> None:
    assert not [tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object", "b:script"}]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"src", "href", "xlink:href", "action", "data"}:
                assert value is not None, (tag, name)
                assert value.startswith(("data:image/", "#")), (tag, name, value[:80])
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_text_is_shown_as_text(page: Page, run: Path) -> None:
    assert "<script>alert(1)</script> | [x](http://evil)" in page.text
    assert "&amp;" in page.text  # escaped once, not twice and not zero times
    html = (run / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "\u202e" not in page.text.split("Configuration")[0]  # no reversed text in prompts and paths


def test_figures_show_generator_names_as_text(run: Path) -> None:
    svg = (run / "figures" / "generators.svg").read_text(encoding="utf-8")
    assert "omnigen2 &lt;b&gt;&amp; (12)" in svg
    assert "<b>" not in svg


def test_ids_in_the_page_are_unique_and_references_resolve(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {value for _, a in page.tags for value in re.findall(r"#([\w-]+)\)", " ".join(filter(None, a.values())))}
    used |= {str(a[name])[1:] for _, a in page.tags for name in ("href", "xlink:href") if name in a}
    assert used <= set(ids)


def test_verdict_and_doubt_come_before_every_table_of_results(page: Page) -> None:
    headline, doubt = (
        page.text.index("On generators it never saw"),
        page.text.index("How much of it is subject matter?"),
    )
    assert headline < page.text.rindex("Results by slice")
    assert doubt < page.text.rindex("Results by slice")
    assert page.text.index("thumbnail only") < page.text.rindex("Results by slice")


@pytest.mark.parametrize(
    "shown",
    [
        "not estimable (n = 3 generated images, fewer than 5)",
        "interval unreliable (4 real and 12 generated clusters, fewer than 5)",
        "val has only 40 real images",
        "truncated: Expected 1200 bytes, got 800",
        "known <i>pair</i>",
        "no thumbnail",
        "torch 2.15.0",
        "runs/quickstart/run/checkpoints/best.ckpt",
        "0.921",
    ],
)
def test_page_shows(page: Page, shown: str) -> None:
    assert shown in page.text


def test_thumbnails_are_inside_the_page(page: Page, report_data: ReportData) -> None:
    gallery = report_data.gallery
    with_picture = [m for m in gallery.false_alarms + gallery.misses if m.thumbnail]
    images = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(images) == len(with_picture)
    assert all(source is not None and source.startswith("data:image/webp;base64,") for source in images)


def test_markdown_tables_have_as_many_cells_as_their_header(run: Path) -> None:
    lines = (run / "report.md").read_text(encoding="utf-8").splitlines()
    width = None
    rows = 0
    for line in lines:
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = cells if width is None else width
        assert cells == width, line
        rows += 1
    assert rows > 40


def test_markdown_escapes_hostile_text(run: Path) -> None:
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "](http" not in text
    assert "\n# heading" not in text
    assert r"&lt;script&gt;alert\(1\)&lt;/script&gt; \| \[x\]\(http\://evil\)" in text


def test_an_empty_report_is_a_page_that_says_so(report_data: ReportData, tmp_path: Path) -> None:
    empty = dataclasses.replace(
        report_data,
        verdict=Verdict("problem", "There is no AUROC."),
        comparison=(),
        groups=(),
        records=(),
        roc=(),
        histogram=None,
        gallery=Gallery("Nothing to show."),
        audit=None,
        bad_files=(),
    )
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "roc.svg").write_text("of an earlier report")
    write_report(empty, tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No audit was given" in page.text
    assert "None: every image of the evaluated splits was scored." in page.text
    assert not list((tmp_path / "figures").glob("*.svg"))
