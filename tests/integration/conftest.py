"""One browser and one service for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # other tests of this folder run without a browser
    from playwright.sync_api import Browser, Page

    from synth.browser import Running


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that measures brightness."""
    from synth.browser import page_bundle

    return page_bundle(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def service(page_folder: Path) -> Iterator[Running]:
    """The service on a free port of loopback."""
    from synth.browser import Running

    running = Running(page_folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; of a module, because Playwright's loop must not outlive the tests that use it."""
    from playwright.sync_api import sync_playwright

    from synth.browser import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Page]:
    """The page, freshly opened."""
    from synth.browser import opened

    yield from opened(browser, service.address)
