"""What tests of API generators share: jobs, a key, and a clock that does not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.retry import Clock
from forgery_det.recipes.generate.job import Job

KEY = "sk-test-0123456789abcdef"

Make = Callable[..., ApiGenerator]


class FakeClock(Clock):
    """Sleeping takes no time, and is written down."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self._now_s = 0.0
        self._lock = threading.Lock()

    def now_s(self) -> float:
        return self._now_s

    def date(self) -> datetime:
        return datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)

    def sleep(self, seconds: float, stop: threading.Event) -> bool:
        with self._lock:
            self.slept.append(seconds)
            self._now_s += seconds
        return not stop.is_set()


def job(prompt: str, seed: int = 7, model: str = "gpt-image-x", **given: Any) -> Job:
    return Job("toy", "openai_images", model, "", prompt, None, seed, {}, **given)


def no_inputs(sha256: str) -> bytes:
    raise AssertionError(f"no input was asked for, got {sha256}")
