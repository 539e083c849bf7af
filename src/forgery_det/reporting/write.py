"""Write `report.html`, `report.md` and `figures/*.svg` of a run.

The HTML page is one file that can be sent to somebody: no script, no network, styles and figures inside, and a content
security policy that forbids the rest. Prompts and file names come from strangers: the HTML is escaped by jinja2, and in
Markdown every expression is escaped unless the template marks it as ours.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from forgery_det.core.artefacts import write_text
from forgery_det.reporting import text
from forgery_det.reporting.charts import section_pictures
from forgery_det.reporting.data import ReportData
from forgery_det.reporting.figures import pictures
from forgery_det.reporting.style import Picture
from forgery_det.reporting.view import section_views, tables

HTML_NAME = "report.html"
MARKDOWN_NAME = "report.md"
FIGURES_NAME = "figures"

MAX_PROMPT = 600
"""Characters of a prompt in the gallery; the rest is cut with an ellipsis."""

SHORT_PROMPT = 110
"""Characters of a prompt that are shown without opening it."""

MAX_BAD_FILES = 100
"""Bad files listed in a report; all of them are in `run.json`."""

LEVEL_WORDS = {
    "ok": "No objection found",
    "doubt": "Read with doubt",
    "problem": "Do not rely on this yet",
}

_SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def write_report(data: ReportData, run: Path) -> tuple[Path, ...]:
    """Write the report into the run folder; each file atomically, equal data giving equal bytes.

    Args:
        data: What to show.
        run: The run folder; made when it is not there.

    Returns:
        The paths written, `report.html` first.
    """
    run = Path(run)
    drawn = (*pictures(data), *section_pictures(data.sections))
    names = [picture.name for picture in drawn]
    assert len(set(names)) == len(names), f"two figures with one name: {sorted(names)}"
    paths = [run / HTML_NAME, run / MARKDOWN_NAME]
    for picture in drawn:
        paths.append(run / FIGURES_NAME / f"{picture.name}.svg")
        write_text(paths[-1], picture.svg)
    # A figure of an earlier report that this one does not draw would be read as part of it.
    for old in (run / FIGURES_NAME).glob("*.svg"):
        if old not in paths:
            old.unlink()
    write_text(paths[1], render_markdown(data, drawn))
    write_text(paths[0], render_html(data, drawn))
    return tuple(paths)


def render_html(data: ReportData, drawn: tuple[Picture, ...]) -> str:
    """Return the page as text."""
    return html_environment().get_template("report.html.j2").render(_context(data, drawn))


def render_markdown(data: ReportData, drawn: tuple[Picture, ...]) -> str:
    """Return the Markdown summary as text."""
    return markdown_environment().get_template("report.md.j2").render(_context(data, drawn))


def html_environment() -> Environment:
    """Return where HTML templates are rendered: everything is escaped unless it is marked as ours."""
    environment = Environment(
        loader=PackageLoader("forgery_det.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "plain": text.plain,
        "data_uri": data_uri,
        "interval": text.with_interval,
    }
    return environment


def markdown_environment() -> Environment:
    """Return where Markdown templates are rendered: every expression is escaped unless the template says `ours`."""
    environment = Environment(
        loader=PackageLoader("forgery_det.reporting"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else text.markdown(str(value)),
    )
    environment.filters |= {"ours": Markup, "number": text.number, "cut": text.plain, "interval": text.with_interval}
    return environment


def data_uri(image: bytes) -> str:
    """Return encoded image bytes as a `data:` address for the page.

    Example:
        >>> data_uri(b"RIFFxx")
        'data:image/webp;base64,UklGRnh4'
    """
    kind = next(
        (mime for signature, mime in _SIGNATURES.items() if image.startswith(signature)), "application/octet-stream"
    )
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _context(data: ReportData, drawn: tuple[Picture, ...]) -> dict[str, Any]:
    sections = section_views(data.sections)
    in_sections = {name for section in sections for name in section.figures}
    return {
        "data": data,
        "tables": tables(data),
        "pictures": {picture.name: picture for picture in drawn},
        "figures": [picture for picture in drawn if picture.name not in {"comparison", *in_sections}],
        "sections": sections,
        "inline": {picture.name: Markup(picture.inline()) for picture in drawn},
        "level_words": LEVEL_WORDS,
        "config": json.dumps(data.config, indent=2, sort_keys=True, ensure_ascii=False, default=str),
        "max_prompt": MAX_PROMPT,
        "short_prompt": SHORT_PROMPT,
        "max_bad_files": MAX_BAD_FILES,
    }
