"""One question to a judge's server: retries with the server's own wait or a backoff, and a key that is never kept.

What a server says is taken apart by the client of the image APIs (`recipes.generate.api.wire`): time and size limits,
statuses, `Retry-After`. A fault that another answer may not meet leaves one answer unjudged; a wrong key, address or
model, an account that is used up, and one fault after another mean that the judge cannot be had.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import random
import threading
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from forgery_det.core.errors import SourceError
from forgery_det.core.image_io import decode_image
from forgery_det.recipes.generate.api.faults import ApiError
from forgery_det.recipes.generate.api.retry import Clock, Gate, RetryPolicy

if TYPE_CHECKING:
    from forgery_det.recipes.generate.api.wire import Wire

GIVE_UP_AFTER = 5
"""Questions in a row that may fail, each after all its attempts, before the server counts as down."""


class Endpoint:
    """JSON over HTTP with retries; safe to use from several threads.

    Args:
        judge: Name of the judge, for errors.
        base_url: Address up to `/v1`.
        key_variable: Environment variable with the key; empty for a server without keys.
        timeout_s: Longest time from a request to the last byte of its answer.
        max_attempts: Requests for one answer, those held back by a rate limit not counted.
    """

    # Tests turn these.
    clock: Clock = Clock()
    backoff_base_s: float = 1.0
    max_wait_s: float = 300.0

    def __init__(self, judge: str, base_url: str, key_variable: str, timeout_s: float, max_attempts: int) -> None:
        self._judge, self._url, self._key_variable = judge, base_url.rstrip("/"), key_variable
        self._timeout_s, self._max_attempts = timeout_s, max_attempts
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self._key = ""
        self._failures = 0
        self._chance = random.Random()
        self._gate = Gate(self.clock)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return the parsed JSON that comes back.

        Raises:
            ApiError: This question got no answer after all attempts; without the key.
            SourceError: No question can: the key, the address or the model is wrong, or the server is down.
        """
        wire = self._opened()
        never = threading.Event()
        policy = RetryPolicy(self._max_attempts, self._max_attempts, self.backoff_base_s, 30.0, self.max_wait_s)
        attempts, limited_s = 0, 0.0
        while True:
            self._gate.wait(never)
            try:
                content = wire.post_json(f"{self._url}/{path}", body, {}).content
            except ApiError as error:
                fault = error.without(self._key)
            else:
                with self._lock:
                    self._failures = 0
                return content
            if fault.is_fatal:
                raise self._unusable(fault.detail)
            attempts += fault.reason != "rate_limited"
            wait_s = (fault.wait_s or 0.0) + policy.backoff_s(max(1, attempts), self._chance)
            limited_s += wait_s
            if not fault.retry or attempts >= self._max_attempts or limited_s > self.max_wait_s:
                self._count(fault)
                raise fault from None
            if fault.wait_s is not None:
                self._gate.pause(fault.wait_s)
                wait_s -= fault.wait_s
            self.clock.sleep(wait_s, never)

    def close(self) -> None:
        """Close the connections; the next question opens them again."""
        with self._lock:
            if self._wire is not None:
                self._wire.close()
                self._wire = None

    def _count(self, fault: ApiError) -> None:
        # A rejected question is an answer of a server that works.
        with self._lock:
            self._failures = 0 if fault.reason == "rejected" else self._failures + 1
            hopeless = self._failures >= GIVE_UP_AFTER
        if hopeless:
            raise self._unusable(f"{GIVE_UP_AFTER} failures in a row, the last one: {fault.detail}") from None

    def _unusable(self, said: str) -> SourceError:
        key = f"the key in {self._key_variable}" if self._key_variable else "no key"
        return SourceError(
            f"Expected verdicts of judge {self._judge!r} from {self._url} with {key}, got: {said}. What was judged is "
            "kept."
        )

    def _opened(self) -> Wire:
        with self._lock:
            if self._wire is None:
                if importlib.util.find_spec("httpx") is None:
                    raise SourceError(
                        f"Expected the package `httpx` for judge {self._judge!r}, got none: install "
                        "`forgery-det[generate]`."
                    )
                from forgery_det.recipes.generate.api.wire import Wire, WireLimits

                self._key = self._read_key()
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                self._wire = Wire(headers, WireLimits(10.0, self._timeout_s), self.clock)
            return self._wire

    def _read_key(self) -> str:
        if not self._key_variable:
            return ""
        key = os.environ.get(self._key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise SourceError(
                f"Expected the key of {self._url} in the environment variable {self._key_variable}, got "
                f"{'none' if not key else 'characters that no key has'} (judge {self._judge!r}). `key_variable` names "
                "another one; empty means that the server needs no key."
            )
        return key


def shown_url(image: bytes, max_side_px: int) -> str:
    """Return an encoded image as a `data:` address with a PNG of at most `max_side_px` a side.

    Raises:
        ImageError: It cannot be decoded.
    """
    picture = Image.fromarray(decode_image(image).image_HWC)
    picture.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
