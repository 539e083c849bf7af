"""When to try again: full jitter, one gate for all workers of an account, and a clock that tests can turn.

The wait before attempt k is uniform in [0, min(cap, base 2^k)] ("full jitter", Brooker, "Exponential Backoff And
Jitter", AWS 2015): clients that failed together do not come back together. A limit is the account's, not a request's,
so what the server says to one worker holds back all of them.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime


class Clock:
    """Time and sleep; a test gives one that does not wait."""

    def now_s(self) -> float:
        """Return seconds of a clock that never goes back."""
        return time.monotonic()

    def date(self) -> datetime:
        """Return the time of day, for headers with a date."""
        return datetime.now(UTC)

    def sleep(self, seconds: float, stop: threading.Event) -> bool:
        """Wait; return False as soon as `stop` is set."""
        return not stop.wait(seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a job is tried.

    Args:
        max_attempts: Requests for one job, those that were only held back by a rate limit not counted.
        max_lost: Requests for one job whose answer was paid for and lost; one more is not risked.
        base_s: Wait before the second attempt, at most.
        cap_s: Longest wait that we choose ourselves.
        max_wait_s: Longest time a job waits for rate limits, those asked for by the server included.
    """

    max_attempts: int = 6
    max_lost: int = 2
    base_s: float = 1.0
    cap_s: float = 60.0
    max_wait_s: float = 900.0

    def backoff_s(self, attempt: int, chance: random.Random) -> float:
        """Return the wait after attempt number `attempt`, counted from 1.

        Example:
            >>> policy = RetryPolicy(base_s=1.0, cap_s=8.0)
            >>> waits = [policy.backoff_s(k, random.Random(0)) for k in (1, 2, 3, 4, 40)]
            >>> all(wait <= limit for wait, limit in zip(waits, (1, 2, 4, 8, 8)))
            True
        """
        return chance.uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 62)))


class Gate:
    """Holds all workers back until a moment that any of them may move on.

    Args:
        clock: Time and sleep.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._opens_s = float("-inf")

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long; a longer pause that already holds stays."""
        with self._lock:
            self._opens_s = max(self._opens_s, self._clock.now_s() + seconds)

    def wait(self, stop: threading.Event) -> bool:
        """Wait until the gate is open; return False when `stop` was set."""
        while not stop.is_set():
            with self._lock:
                remaining = self._opens_s - self._clock.now_s()
            if remaining <= 0:
                return True
            if not self._clock.sleep(remaining, stop):
                return False
        return False
