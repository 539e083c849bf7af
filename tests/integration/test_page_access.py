"""The page for everyone: by keyboard, on a narrow screen, with names and contrast, without motion."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from synth.browser import (
    BLACK,
    CHROMIUM,
    GREY,
    NARROWEST,
    NO_CHROMIUM,
    PHONE,
    WHITE,
    Running,
    box,
    bright_corner,
    choose,
    opened,
    upload,
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]
AUDIT = Path(__file__).with_name("page_audit.js")


def test_several_stand_side_by_side_and_below_each_other_on_a_phone(page: Page) -> None:
    cards = choose(page, upload("a.png", WHITE), upload("b.png", BLACK))
    first, second = box(cards.nth(0)), box(cards.nth(1))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] < second["x"]
    page.set_viewport_size(PHONE)
    first, second = box(cards.nth(0)), box(cards.nth(1))
    assert first["x"] == second["x"]
    assert first["y"] + first["height"] < second["y"]


def test_the_whole_way_by_keyboard_alone(page: Page) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab never reached {selector}")

    page.on("filechooser", lambda _: None)  # now, as the browser needs a moment to hand its dialogs over
    tab_to("#files")
    outline = "() => getComputedStyle(document.querySelector('label[for=files]')).outlineStyle"
    assert page.evaluate(outline) == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([upload("bright.png", bright_corner()), upload("b.png", BLACK)])
    expect(page.locator(".card[data-state=done]")).to_have_count(2)
    expect(page.locator("#live")).to_contain_text("looks real, score")
    tab_to(".heat-controls > .button")
    page.keyboard.press("Enter")
    expect(page.locator(".card").first.locator("canvas.heat")).to_be_visible()
    assert page.evaluate("() => document.activeElement.getAttribute('aria-pressed')") == "true"
    tab_to(".strength input")
    page.keyboard.press("ArrowLeft")
    assert page.locator("canvas.heat").first.evaluate("node => node.style.opacity") == "0.74"
    tab_to("summary")
    page.keyboard.press("Enter")
    expect(page.locator(".card").first.locator("details[open]")).to_have_count(1)
    tab_to("[aria-label='Remove bright.png']")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(1)
    assert page.evaluate("() => document.activeElement.className") == "card"  # the next one, not the top of the page


@pytest.mark.parametrize("size", [PHONE, NARROWEST])
def test_nothing_runs_off_a_narrow_screen(page: Page, size: ViewportSize) -> None:
    page.set_viewport_size(size)
    card = choose(page, upload(f"{'a-very-long-name' * 8}.png", bright_corner()), upload("x.png", b"no")).first
    card.get_by_role("button", name="Show what drives the score").click()
    expect(card.locator("canvas.heat")).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("() => document.documentElement.scrollWidth") == size["width"]
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, label.button, summary, input[type=range]")]
          .filter((node) => node.offsetParent && node.getBoundingClientRect().height < 24)
          .map((node) => node.textContent)"""
    )
    assert small == []  # WCAG 2.2, 2.5.8: targets of at least 24 px


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_text_is_readable(browser: Browser, service: Running, scheme: str) -> None:
    for page in opened(browser, service.address, color_scheme=scheme):
        files = [upload("w.png", WHITE), upload("b.png", BLACK), upload("g.png", GREY), upload("x.png", b"no")]
        choose(page, *files).first.get_by_role("button", name="Show what drives the score").click()
        expect(page.locator("canvas.heat").first).to_be_visible()
        for summary in page.locator("summary").all():
            summary.click()
        audit = AUDIT.read_text(encoding="utf-8")
        assert page.evaluate(audit) == []
        page.evaluate("() => document.documentElement.style.setProperty('--soft', 'var(--rule)')")
        assert any(trouble.startswith("contrast 1.") for trouble in page.evaluate(audit))  # it can fail


def test_nothing_moves_for_those_who_asked_for_less_motion(page: Page) -> None:
    choose(page, upload("w.png", WHITE))
    marker = "getComputedStyle(node.querySelector('.marker'))"
    still = f"node => getComputedStyle(node).animationName + {marker}.transitionDuration"
    assert page.locator(".card").evaluate(still) == "none0s"
    page.emulate_media(reduced_motion="no-preference")
    assert page.locator(".card").evaluate(still) == "arrive0.5s"
