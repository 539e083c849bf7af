"""What the page does with pictures, in a real browser against the real service; `synth.browser` says which detector."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser, Page, expect

from forgery_det.serving.http.settings import ServeSettings
from synth.browser import (
    BLACK,
    CHROMIUM,
    GREY,
    NO_CHROMIUM,
    WHITE,
    Running,
    box,
    bright_corner,
    choose,
    opened,
    upload,
)  # fmt: skip
from synth.provenance import jpeg_with, make_authority, sign
from synth.service import plain_png

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)]


def test_the_empty_page_says_what_it_can_and_cannot_and_which_model_answers(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("A photo, or generated?")
    expect(page.locator(".guide")).to_contain_text("Prove anything.")
    expect(page.locator("#chip")).to_have_text("brightness · 0123456789ab")
    about = page.locator("#about")
    expect(about).to_contain_text("0.910")
    expect(about).to_contain_text("0.860 to 0.950")
    expect(about).to_contain_text("the lines were drawn on 90 others, 40 of them real")
    expect(page.locator("#limits")).to_contain_text("up to 32 MiB each")
    expect(page.locator("#answers")).to_be_hidden()


def test_verdicts_in_plain_words_with_their_uncertainty(page: Page) -> None:
    cards = choose(page, upload("w.png", WHITE), upload("b.png", BLACK), upload("g.png", GREY))
    generated, real, uncertain = cards.nth(0), cards.nth(1), cards.nth(2)
    expect(generated.get_by_role("heading", level=3)).to_have_text("◆Looks generated")
    expect(generated).to_contain_text("about 5 % of the 40 real validation pictures lie above it")
    expect(generated).to_contain_text("on held-out test pictures 8 % did (95 % interval 2 % to 16 %)")
    expect(real.get_by_role("heading", level=3)).to_have_text("●Looks like a real photo")
    expect(real).to_contain_text("does not prove a camera took it")
    expect(uncertain.get_by_role("heading", level=3)).to_have_text("◇Too close to call")
    expect(uncertain).to_contain_text("no verdict is given")
    expect(page.locator("#summary")).to_have_text("3 pictures: 1 looks generated, 1 looks real, 1 too close to call")
    scale = uncertain.get_by_role("img", name=re.compile("^Score 0.50 on a scale"))
    expect(scale).to_have_attribute("aria-label", re.compile("No verdict between 0.38 and 0.62. The line is at 0.73."))
    marker = float(uncertain.locator(".marker").evaluate("node => parseFloat(node.style.left)"))
    assert marker == pytest.approx(50.5, abs=0.6)


def test_what_weakens_an_answer_is_said(page: Page) -> None:
    tiny = choose(page, upload("tiny.png", plain_png(255, side_px=20))).first
    expect(tiny.get_by_role("list", name="Reasons to trust this less")).to_contain_text("There is little to judge by.")


def test_a_picture_is_pasted_with_the_keyboard(browser: Browser, service: Running) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    for page in opened(browser, service.address, permissions=permissions):
        page.evaluate(
            """async (text) => {
              const bytes = Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
              const picture = new Blob([bytes], {type: "image/png"});
              await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
            }""",
            base64.b64encode(WHITE).decode(),
        )
        page.locator("#main").focus()
        page.keyboard.press("Control+V")
        expect(page.locator(".card h3")).to_have_text("◆Looks generated")


def test_pictures_are_dropped_anywhere(page: Page) -> None:
    transfer = page.evaluate_handle(
        """(text) => {
          const bytes = Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
          const transfer = new DataTransfer();
          for (const name of ["one.png", "two.png"]) transfer.items.add(new File([bytes], name, {type: "image/png"}));
          return transfer;
        }""",
        base64.b64encode(BLACK).decode(),
    )
    page.dispatch_event(".guide", "dragenter", {"dataTransfer": transfer})
    expect(page.locator("#curtain")).to_be_visible()
    page.dispatch_event(".guide", "drop", {"dataTransfer": transfer})
    expect(page.locator("#curtain")).to_be_hidden()
    expect(page.locator(".card[data-decision=real]")).to_have_count(2)


def test_the_heat_map_lies_on_the_part_that_the_detector_saw(page: Page) -> None:
    card = choose(page, upload("corner.png", bright_corner())).first
    card.get_by_role("button", name="Show what drives the score").click()
    canvas, image = card.locator("canvas.heat"), card.locator(".stage img")
    expect(canvas).to_be_visible()
    laid, shown = box(canvas), box(image)
    scale = shown["width"] / 640
    assert laid["x"] - shown["x"] == pytest.approx(160 * scale, abs=1)
    assert laid["y"] - shown["y"] == pytest.approx(0, abs=1)
    assert laid["width"] == pytest.approx(320 * scale, abs=1)
    assert laid["height"] == pytest.approx(320 * scale, abs=1)
    pixels = np.array(
        canvas.evaluate("node => [...node.getContext('2d').getImageData(0, 0, node.width, node.height).data]")
    ).reshape(8, 8, 4)
    assert np.unravel_index(pixels[:, :, 3].argmax(), (8, 8)) == (0, 0)  # the white corner, upper left of what was seen
    assert tuple(pixels[0, 0, :3]) == (216, 99, 27)  # orange: it speaks for "generated"
    sign_box = box(card.locator(".sign.for-generated"))
    assert sign_box["x"] + sign_box["width"] / 2 - shown["x"] == pytest.approx(180 * scale, abs=2)
    assert sign_box["y"] + sign_box["height"] / 2 - shown["y"] == pytest.approx(20 * scale, abs=2)
    expect(card.locator(".heat-extra")).to_contain_text("Strongest: upper left (covering it moves the logit by \u2212")
    expect(card.locator(".heat-extra")).to_contain_text("The detector saw only the part inside the frame.")
    card.get_by_role("button", name="Hide what drives the score").click()
    expect(canvas).to_be_hidden()


def test_a_refused_file_says_why_and_harms_no_other(page: Page) -> None:
    letter = upload("letter.png", b"Dear reader")
    cut = upload("cut.png", WHITE[: len(WHITE) - 20])
    cards = choose(page, letter, upload("good.png", WHITE), cut)
    expect(cards.nth(0)).to_contain_text("Not judged")
    expect(cards.nth(0)).to_contain_text("This is not a picture that can be read.")
    expect(cards.nth(0)).to_contain_text("not_an_image: Expected an image")
    expect(cards.nth(0).get_by_role("button", name="Try again")).to_have_count(0)
    expect(cards.nth(1)).to_contain_text("Looks generated")
    expect(cards.nth(2)).to_contain_text("The file ends too early")
    expect(page.locator("#summary")).to_have_text("3 pictures: 1 looks generated, 2 not judged")


def test_a_file_above_the_limit_is_not_even_sent(page: Page) -> None:
    expect(page.locator("#chip")).to_be_visible()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(33 * 2 ** 20)], "huge.png", {type: "image/png"}));
          dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, cancelable: true}));
        }"""
    )
    expect(page.locator(".card")).to_contain_text("The file is too large for this service.")
    assert [url for url in sent if "predict" in url] == []


def test_a_lost_service_is_told_and_a_retry_works_when_it_is_back(browser: Browser, page_folder: Path) -> None:
    running = Running(page_folder)
    for page in opened(browser, running.address):
        expect(page.locator("#chip")).to_be_visible()
        running.stop()
        page.set_input_files("#files", [upload("w.png", WHITE)])
        card = page.locator(".card")
        expect(card).to_contain_text("the connection was lost, or it is not running")
        running.start()
        card.get_by_role("button", name="Try again").click()
        expect(card).to_contain_text("Looks generated")
    running.stop()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_after_the_pause_it_names(page: Page, status: int) -> None:
    asked: list[float] = []

    def first_busy(route: Any) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            route.continue_()
            return
        problem = {"request_id": "x", "error": {"code": "queue_full", "message": "Expected room."}, "images": None}
        route.fulfill(status=status, headers={"Retry-After": "1"}, json=problem)

    page.route("**/v1/predict**", first_busy)
    page.set_input_files("#files", [upload("w.png", WHITE)])
    expect(page.locator(".card h3")).to_have_text("Busy, next try in 1 s")
    expect(page.locator(".card h3")).to_have_text("◆Looks generated")
    assert len(asked) == 2


def test_a_picture_that_is_too_large_for_the_service_says_so(page: Page) -> None:
    problem = {"request_id": "x", "error": {"code": "request_too_large", "message": "Expected less."}, "images": None}
    page.route("**/v1/predict**", lambda route: route.fulfill(status=413, json=problem))
    expect(choose(page, upload("w.png", WHITE)).first).to_contain_text("Expected less.")


def test_a_service_with_keys_asks_for_one(browser: Browser, page_folder: Path) -> None:
    running = Running(page_folder, ServeSettings(api_keys=(b"open-sesame-0123456789",)))
    for page in opened(browser, running.address):
        field = page.get_by_label("Key", exact=True)
        expect(field).to_be_focused()
        field.fill("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_contain_text("That key was not accepted.")
        field.fill("open-sesame-0123456789")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        expect(choose(page, upload("w.png", WHITE)).first).to_contain_text("Looks generated")
        assert page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length") == 0
    running.stop()


def test_the_downloaded_json_is_the_answer_of_the_service(page: Page, service: Running) -> None:
    card = choose(page, upload("grey.png", GREY)).first
    card.get_by_role("button", name="Show what drives the score").click()
    expect(card.locator("canvas.heat")).to_be_visible()
    with page.expect_download() as download:
        card.get_by_role("button", name=re.compile("Download the result")).click()
    assert download.value.suggested_filename == "grey.png.forgery-det.json"
    written = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    files = {"files": ("grey.png", GREY, "image/png")}
    answer = httpx.post(f"{service.address}v1/predict?provenance=true", files=files).json()
    heatmap = httpx.post(f"{service.address}v1/explain", files=files).json()
    (result,) = written["results"]
    assert without_times(result["answer"]) == without_times(answer)
    assert without_times(result["heatmap"]) == without_times(heatmap)
    assert (result["file"], result["error"], written["model"]["name"]) == ("grey.png", None, "brightness")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON", exact=True).click()
    assert json.loads(Path(download.value.path()).read_text(encoding="utf-8"))["results"] == written["results"]


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in answer.items() if key not in ("request_id", "timings")}
    if "images" in plain:
        plain["images"] = [{key: value for key, value in one.items() if key != "timings"} for one in plain["images"]]
    return plain


def test_what_the_file_says_stands_apart_from_what_the_detector_says(page: Page) -> None:
    target = io.BytesIO()
    Image.new("RGB", (80, 80)).save(target, "JPEG")
    signed = sign(target.getvalue(), make_authority())
    changed = jpeg_with(signed, 0xFE, b"a comment that came after the signature")
    files = [upload("signed.jpg", signed), upload("changed.jpg", changed), upload("plain.png", BLACK)]
    cards = choose(page, *files)
    told = [cards.nth(index).get_by_role("region", name="What the file says about itself") for index in range(3)]
    expect(told[0]).to_contain_text("It claims to be made by a generator.")
    expect(told[0]).to_contain_text("✓ C2PA manifest holds, signer not checked")
    expect(told[0]).to_contain_text("A signed statement that a picture was generated weighs more")
    told[0].get_by_text("The manifest", exact=True).click()
    expect(told[0]).to_contain_text("Test Signer, Test Camera Works")
    expect(told[0]).to_contain_text("created with Test Painter 3.1 (trainedAlgorithmicMedia)")
    expect(told[1]).to_contain_text("✕ C2PA manifest does not validate")
    expect(told[1]).not_to_contain_text("It claims")
    expect(told[2]).to_contain_text("That proves nothing")
    for index in range(3):  # the verdict is about the pixels, whatever the file claims
        expect(cards.nth(index).get_by_role("heading", level=3)).to_have_text("●Looks like a real photo")


def test_hostile_names_and_notes_are_shown_as_text(page: Page) -> None:
    attack = "<img src=x onerror=document.title='owned'>"
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", f"{attack} Steps: 20, Sampler: Euler")
    target = io.BytesIO()
    Image.new("RGB", (80, 80)).save(target, "PNG", pnginfo=info)
    card = choose(page, upload(f"{attack}.png", target.getvalue())).first
    card.get_by_text("Notes in the file").click()
    expect(card.locator(".raw")).to_contain_text(attack)
    expect(card.locator(".file")).to_have_text(f"{attack}.png")
    assert card.locator("img").count() == 1
    assert "owned" not in page.title()
