"""The page in a real headless Chromium against the real service on loopback, with a detector whose answers are known.

The detector measures brightness: logit = 10 * (mean of the central square - 0.5), generated from 1, uncertain between
-0.5 and 0.5. FORGERY_DET_CHROMIUM names the browser where it is not on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, expect

from forgery_det.core.image_io import encode_image
from forgery_det.serving.http.app import create_app
from forgery_det.serving.http.settings import ServeSettings
from forgery_det.serving.predictor import Predictor
from synth.service import brightness_bundle, plain_png

CHROMIUM = os.environ.get("FORGERY_DET_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NO_CHROMIUM = "no Chromium on the PATH and FORGERY_DET_CHROMIUM is not set"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
)
DESK: ViewportSize = {"width": 1200, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
NARROWEST: ViewportSize = {"width": 320, "height": 640}
HELD_OUT = [
    {"metric": "auroc", "slice": "overall", "value": 0.91, "ci_low": 0.86, "ci_high": 0.95, "n": 120},
    {"metric": "fpr@fpr_5pct", "slice": "overall", "value": 0.08, "ci_low": 0.02, "ci_high": 0.16, "n": 60},
    {"metric": "auroc", "slice": "paradigm=gan", "value": 0.7, "ci_low": 0.6, "ci_high": 0.8, "n": 40},
]
WHITE, BLACK, GREY = (plain_png(level) for level in (255, 0, 128))


class Running:
    """The service in a thread; it can go away and come back on the same port."""

    def __init__(self, bundle: Path, settings: ServeSettings | None = None) -> None:
        self.predictor, self.settings, self.port = Predictor(bundle, threads=1), settings, 0
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        app = create_app(self.predictor, self.settings)
        self.server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=self.port, ws="none", log_level="error", access_log=False)
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 30
        while not self.server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def page_bundle(folder: Path) -> Path:
    """Write the bundle of `brightness_bundle`, with held-out results and a summary of the training."""
    path = brightness_bundle(folder) / "bundle.json"
    document = json.loads(path.read_text()) | {
        "held_out": HELD_OUT,
        "heatmap": {"method": "occlusion", "cells": 8},
        "training": {"n_train": 200, "n_val": 90, "n_val_real": 40, "generators": ["lamp-1", "lamp-2"]},
    }
    path.write_text(json.dumps(document))
    return folder


def opened(browser: Browser, address: str, **settings: Any) -> Iterator[Page]:
    """Open the page, and after the test hold it to this: no script failed, and the content policy forbade nothing."""
    context = browser.new_context(viewport=DESK, reduced_motion="reduce", **settings)
    page = context.new_page()
    page.set_default_timeout(20_000)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto(address)
    yield page
    context.close()
    # Chromium reports every answer of 400 and above; those are what the tests ask for.
    assert [trouble for trouble in troubles if not trouble.startswith("Failed to load resource")] == []


def upload(name: str, data: bytes, mime: str = "image/png") -> Any:
    """A file as Playwright takes it."""
    return {"name": name, "mimeType": mime, "buffer": data}


def choose(page: Page, *files: Any) -> Locator:
    """Choose files, wait until each has an answer, and return the cards."""
    before = page.locator(".card").count()
    page.set_input_files("#files", list(files))
    finished = page.locator(".card[data-state=done], .card[data-state=failed]")
    expect(finished).to_have_count(before + len(files), timeout=30_000)
    return page.locator(".card")


def box(found: Locator) -> FloatRect:
    """Where an element lies on the page; it must be visible."""
    rectangle = found.bounding_box()
    assert rectangle is not None
    return rectangle


def bright_corner() -> bytes:
    """640 x 320, so that the detector sees x from 160 to 480; the upper left of that is white, all else black."""
    picture = np.zeros((320, 640, 3), np.uint8)
    picture[:40, 160:200] = 255
    return encode_image(picture, "png", None)
