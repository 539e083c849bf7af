"""`docs/detectors.md` says what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forgery_det.detectors import list_detectors
from forgery_det.detectors.table import detector_rows, markdown_table

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8")


def between(name: str) -> str:
    """The lines between two markers of the page."""
    (found,) = re.findall(rf"<!-- {name}: begin -->\n(.*?)\n?<!-- {name}: end -->", TEXT, re.DOTALL)
    return found


@pytest.mark.slow
def test_the_table_is_the_generated_one():
    assert between("table") == markdown_table(list(detector_rows())), "forgery-det list detectors --markdown"


def test_costs_are_of_known_detectors_in_order():
    named = re.findall(r"^\| `(\w+)` \|", between("costs"), re.MULTILINE)
    assert named
    assert named == [name for name in list_detectors() if name in named]


@pytest.mark.parametrize("name", list_detectors())
def test_every_detector_is_explained(name):
    explained = TEXT.partition("## What to know of each")[2]
    assert f"**{name}**" in explained


def test_parity_is_told_for_every_reference_within_its_limit():
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| (\S+) \| (\S+) \| (\S+) \|$", TEXT, re.MULTILINE)
    references = {path.stem for path in (ROOT / "tests" / "goldens" / "reference").glob("*.json")}
    assert {row[0] for row in rows} == references
    assert all(max(float(alone), float(whole)) <= float(limit) for _, alone, whole, limit in rows)


def test_every_preset_is_listed():
    presets = {path.stem for path in (ROOT / "configs" / "preset").glob("*.yaml")}
    assert presets <= set(re.findall(r"^\| `(\w+)` \| `\w+[\w.]*` \|", TEXT, re.MULTILINE))
