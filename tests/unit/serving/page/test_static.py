"""The page's files, without a browser: nothing from outside, nothing inline, words for everything, readable colours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from forgery_det.serving import page
from forgery_det.serving.http.gate import CONTENT_SECURITY_POLICY
from forgery_det.serving.image_warnings import WARNINGS
from forgery_det.serving.page.c2pa_manifest import State
from forgery_det.serving.page.origin_marks import Says

STATIC = Path(page.__file__).parent / "static"
FILES = sorted(path for path in STATIC.iterdir() if path.is_file())
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in FILES}
HTML, CSS, WORDS = TEXTS["index.html"], TEXTS["style.css"], TEXTS["words.js"]
READABLE = 4.5
"""Contrast that WCAG 2.2 asks of text (1.4.3); 3 for what is not text (1.4.11)."""


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_loaded_from_outside(name: str) -> None:
    without_namespaces = TEXTS[name].replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|//[a-z0-9-]+\.[a-z]{2,}|@import|url\(", without_namespaces) == []


def test_every_file_that_is_named_is_there_and_every_file_is_named() -> None:
    named = set(re.findall(r'(?:src|href)="([\w.]+)"', HTML)) - {"docs"}  # the service makes that one
    named |= {match for text in TEXTS.values() for match in re.findall(r'from "\./([\w.]+)"', text)}
    assert named == set(TEXTS) - {"index.html"}


def test_nothing_is_inline_so_a_strict_policy_holds() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert re.findall(r"<style|style=|\son[a-z]+=|javascript:|<script(?![^>]*src=)", HTML) == []
    scripts = "".join(text for name, text in TEXTS.items() if name.endswith(".js"))
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts) == []


def table(name: str) -> set[str]:
    """Return the keys of an object in words.js."""
    body = re.search(rf"(?:export )?const {name} = {{(.*?)^}};", WORDS, re.DOTALL | re.MULTILINE)
    assert body is not None
    return set(re.findall(r'^  "?([\w./]+)"?:', body[1], re.MULTILINE))


def test_there_are_words_for_everything_that_the_service_may_say() -> None:
    assert table("WARNINGS") == set(WARNINGS)
    assert table("MANIFEST") == set(get_args(State))
    assert table("SAYS") == set(get_args(Says))
    assert table("DECISIONS") == {"generated", "real", "uncertain", "n/a"}


def test_controls_have_names() -> None:
    for tag in re.findall(r"<input[^>]*>", HTML):
        found = re.search(r'id="([\w-]+)"', tag)
        assert found is not None, tag
        assert f'for="{found[1]}"' in HTML, tag
    assert 'lang="en"' in HTML
    assert 'aria-live="polite"' in HTML


def colours(is_dark: bool) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
    values = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light))
    return values | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", dark)) if is_dark else values


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_formula_has_its_known_ends() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("is_dark", [False, True])
def test_text_is_readable_on_every_ground(is_dark: bool) -> None:
    colour = colours(is_dark)
    inks = ("ink", "soft", "real", "generated", "open", "good", "bad")
    pairs = {(ink, ground) for ink in inks for ground in ("paper", "card", "sunk")}
    pairs |= {("ink", wash) for wash in ("real-wash", "generated-wash", "open-wash")} | {("button-ink", "button")}
    low = {pair: round(contrast(colour[pair[0]], colour[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < READABLE} == {}


@pytest.mark.parametrize("is_dark", [False, True])
def test_markers_stand_out_from_the_card(is_dark: bool) -> None:
    colour = colours(is_dark)
    assert min(contrast(colour[name], colour["card"]) for name in ("real", "generated", "open")) >= 3


def test_the_heat_maps_colours_are_those_of_the_reports() -> None:
    # Read, not imported: the module brings matplotlib with it.
    style = (STATIC.parents[2] / "reporting" / "style.py").read_text(encoding="utf-8")
    found = re.search(r'^REAL, GENERATED = "(#\w{6})", "(#\w{6})"', style, re.MULTILINE)
    assert found is not None
    for name, colour in zip(("REAL", "GENERATED"), found.groups(), strict=True):
        rgb = ", ".join(str(int(colour[index : index + 2], 16)) for index in (1, 3, 5))
        assert f"const {name} = [{rgb}];" in TEXTS["heat.js"]
