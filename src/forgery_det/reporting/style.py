"""One look for every figure: colours that colour-blind readers tell apart, never colour alone, always the same bytes.

Figures are SVG. In the HTML page the ink becomes `currentColor`, so one figure serves light and dark pages; the files
in `figures/` keep black ink on white. Matplotlib's object API is used throughout: pyplot's global state is never
touched. Colours are near those of Okabe and Ito (2008), shifted to be readable on white and on dark grey.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

REAL, GENERATED = "#2a7fbf", "#d8631b"
SEEN, HELD_OUT, SHORTCUT = "#12956b", "#b8509a", "#a8811a"

INK = "#010203"
"""Colour of text and axes; an odd value, because it is replaced by `currentColor` in the HTML page."""

EXPOSURE_COLOUR = {"all": INK, "seen": SEEN, "held_out": HELD_OUT, "real": REAL}
EXPOSURE_NAME = {"all": "all generators", "seen": "seen in training", "held_out": "held out", "real": "real"}
EXPOSURE_DASH = {"all": "-", "seen": (0, (5, 2)), "held_out": "-", "real": "-"}
EXPOSURE_MARKER = {"all": "D", "seen": "s", "held_out": "o", "real": "o"}

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: searchable, and drawn in the reader's font
    "svg.hashsalt": "forgery-det",  # otherwise element ids are random
    "text.parse_math": False,  # generator names are untrusted: a dollar sign is a dollar sign
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn figure.

    Args:
        name: File stem.
        title: Heading on the page.
        caption: What it shows and how to read it, in words.
        svg: The whole SVG document, black ink on white.
    """

    name: str
    title: str
    caption: str
    svg: str

    def inline(self) -> str:
        """Return the `<svg>` element for an HTML page: ink follows the page, ids are unique to this figure."""
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r'<rect class="paper".*?/>', "", body, count=1).replace(INK, "currentColor")
        body = re.sub(r'(?<=\bid=")([^"]+)', rf"{self.name}-\1", body)
        body = re.sub(r"(?<=url\(#)([^)]+)", rf"{self.name}-\1", body)
        body = re.sub(r'(?<=href="#)([^"]+)', rf"{self.name}-\1", body)
        # A fixed width in points would not shrink on a phone; the viewBox keeps the aspect.
        return re.sub(r'<svg ([^>]*?)\s*width="[^"]*"', r'<svg role="img" \1', _drop_height(body), count=1)


def _drop_height(body: str) -> str:
    head, rest = body.split(">", 1)
    return re.sub(r'\sheight="[^"]*"', "", head) + ">" + rest


def draw(
    name: str,
    title: str,
    caption: str,
    paint: Callable[[Axes], None],
    *,
    width_in: float = 5.0,
    height_in: float = 3.6,
    legend_below: bool = False,
) -> Picture:
    """Draw one figure in the house style and return it as SVG; equal input gives equal bytes.

    Args:
        name: File stem, also the prefix of ids in the page.
        title: Heading on the page.
        caption: What it shows, in words.
        paint: Fills the axes.
        width_in: Width in inches; small, so that text stays readable on a phone.
        height_in: Height in inches.
        legend_below: Put the legend of the axes below everything, where it can cover nothing.
    """
    with matplotlib.rc_context(cast(Any, _STYLE)), warnings.catch_warnings():
        # The reader's browser chooses the font, so a glyph that DejaVu lacks is no loss.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        paint(axes)
        if legend_below:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=2.6)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = re.sub(
        r"(<svg[^>]*>)",
        r'\1<rect class="paper" width="100%" height="100%" fill="#ffffff"/>',
        buffer.getvalue(),
        count=1,
    )
    return Picture(name, title, caption, svg)
