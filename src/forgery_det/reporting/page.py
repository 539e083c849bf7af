"""A short page of sections: `<stem>.html`, `<stem>.md` and figures, for results that are not one detector's report.

The same rules as for `report.html`: one self-contained file, no script, no network, every text from outside escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from forgery_det.core.artefacts import write_text
from forgery_det.reporting.charts import chart
from forgery_det.reporting.data import Verdict
from forgery_det.reporting.sections import Section
from forgery_det.reporting.style import Picture
from forgery_det.reporting.view import section_views
from forgery_det.reporting.write import FIGURES_NAME, LEVEL_WORDS, html_environment, markdown_environment


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows.

    Args:
        title: Name of the page.
        facts: Short facts for the head of the page, name -> text.
        verdict: Summary in plain words.
        sections: In order.
        figures: Section name -> figures that are drawn already, shown before the section's own charts.
        config: The resolved configuration.
        versions: Package -> version.
    """

    title: str
    facts: Mapping[str, str]
    verdict: Verdict
    sections: tuple[Section, ...]
    figures: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def write_page(page: Page, folder: Path, stem: str) -> tuple[Path, ...]:
    """Write the page into a folder; each file atomically, equal data giving equal bytes.

    Args:
        page: What to show.
        folder: Made when it is not there.
        stem: `<stem>.html` and `<stem>.md`.

    Returns:
        The paths written, the HTML page first.
    """
    folder = Path(folder)
    drawn = {section.name: _pictures(page, section) for section in page.sections}
    paths = [folder / f"{stem}.html", folder / f"{stem}.md"]
    for picture in (picture for pictures in drawn.values() for picture in pictures):
        paths.append(folder / FIGURES_NAME / f"{picture.name}.svg")
        write_text(paths[-1], picture.svg)
    # A figure of an earlier page that this one does not draw would be read as part of it.
    for old in (folder / FIGURES_NAME).glob("*.svg"):
        if old not in paths:
            old.unlink()
    context = _context(page, drawn)
    write_text(paths[1], markdown_environment().get_template("page.md.j2").render(context))
    write_text(paths[0], html_environment().get_template("page.html.j2").render(context))
    return tuple(paths)


def _pictures(page: Page, section: Section) -> tuple[Picture, ...]:
    charts = (chart(values) for values in section.charts)
    return (*page.figures.get(section.name, ()), *(picture for picture in charts if picture is not None))


def _context(page: Page, drawn: Mapping[str, tuple[Picture, ...]]) -> dict[str, Any]:
    return {
        "page": page,
        "sections": section_views(page.sections),
        "drawn": drawn,
        "inline": {picture.name: Markup(picture.inline()) for found in drawn.values() for picture in found},
        "level_words": LEVEL_WORDS,
        "config": json.dumps(page.config, indent=2, sort_keys=True, ensure_ascii=False, default=str),
    }
