"""Places: how much work may be in the house at the same time. What comes on top is refused at the door.

Three counts, each refused with what mends it: requests and images (429: come back when the queue is shorter), bytes of
bodies (503: the process lacks memory). A fourth, bytes of decoded images, is not refused but waited for, in the order
of arrival: the images are in the house already, and the time limit of their request bounds the wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.settings import Limits

MOST_RETRY_S = 60


class Admission:
    """Counts of requests, images and body bytes in flight. Used from the event loop only.

    Args:
        limits: The bounds.
        seconds_per_image: Estimate of the time an image takes, for `Retry-After`.

    Example:
        >>> admission = Admission(Limits(max_requests=1), lambda: 0.5)
        >>> with admission.request():
        ...     admission.requests
        1
        >>> admission.requests
        0
    """

    def __init__(self, limits: Limits, seconds_per_image: Callable[[], float]) -> None:
        self._limits = limits
        self._seconds_per_image = seconds_per_image
        self.requests = 0
        self.images = 0
        self.body_bytes = 0

    def retry_after_s(self) -> int:
        """Return the whole seconds after which the images now in flight should be done."""
        return min(MOST_RETRY_S, max(1, math.ceil(self.images * self._seconds_per_image())))

    @contextmanager
    def request(self) -> Iterator[None]:
        """Hold a place for a request.

        Raises:
            RefusalError: `queue_full`.
        """
        full_images = self.images >= self._limits.max_queued_images
        if self.requests >= self._limits.max_requests or full_images:
            raise self._full(
                f"Expected at most {self._limits.max_requests} requests and {self._limits.max_queued_images} images "
                f"in flight, got one more."
            )
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1

    @contextmanager
    def queued(self, n_images: int) -> Iterator[None]:
        """Hold places for the images of a request.

        A request that finds nobody else is let in whatever its number of images, so that `max_queued_images` below
        `max_images` refuses no request for ever.

        Raises:
            RefusalError: `queue_full`.
        """
        if self.images and self.images + n_images > self._limits.max_queued_images:
            raise self._full(
                f"Expected at most {self._limits.max_queued_images} images in flight, got {self.images} and "
                f"{n_images} more."
            )
        self.images += n_images
        try:
            yield
        finally:
            self.images -= n_images

    @contextmanager
    def buffer(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes room for bytes of a body; all of it is given back at the end.

        Raises:
            RefusalError: `out_of_buffer`, from the function.
        """
        taken = 0

        def take(n_bytes: int) -> None:
            nonlocal taken
            if self.body_bytes + n_bytes > self._limits.max_buffered_bytes:
                raise RefusalError(
                    "out_of_buffer",
                    f"Expected at most {self._limits.max_buffered_bytes} bytes of bodies in flight, got "
                    f"{self.body_bytes} and {n_bytes} more.",
                    retry_after_s=self.retry_after_s(),
                )
            taken += n_bytes
            self.body_bytes += n_bytes

        try:
            yield take
        finally:
            self.body_bytes -= taken

    def _full(self, message: str) -> RefusalError:
        return RefusalError("queue_full", message, retry_after_s=self.retry_after_s())


class ByteRoom:
    """Room for decoded images; who finds none waits, first come first served. Used from the event loop only.

    Args:
        capacity_bytes: All the room; a larger wish counts as all of it, and waits until nobody else is in.

    Example:
        >>> async def two() -> int:
        ...     room = ByteRoom(10)
        ...     wide, narrow = await room.enter(99), asyncio.ensure_future(room.enter(4))
        ...     room.leave(wide)
        ...     return await narrow
        >>> asyncio.run(two())
        4
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, wish_bytes: int) -> int:
        """Wait for room and return how much was taken, which `leave` wants back."""
        n_bytes = min(wish_bytes, self.capacity_bytes)
        if not self._waiting and self.used_bytes + n_bytes <= self.capacity_bytes:
            self.used_bytes += n_bytes
            return n_bytes
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (n_bytes, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(n_bytes)  # the turn came in the same moment as the cancellation
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._call_next()
            raise
        return n_bytes

    def leave(self, n_bytes: int) -> None:
        """Give room back and let the next ones in."""
        self.used_bytes -= n_bytes
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self.used_bytes + self._waiting[0][0] <= self.capacity_bytes:
            n_bytes, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.used_bytes += n_bytes
                turn.set_result(None)
