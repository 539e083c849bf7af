"""The parts of one running service, made together and closed together.

`start` runs inside the event loop (the batcher is a task of it), so the app's lifespan calls it. A service that is
`draining` answers what it has and refuses what is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import Receive

from forgery_det.serving.http.admission import Admission, ByteRoom
from forgery_det.serving.http.batcher import Batcher
from forgery_det.serving.http.fetch import Fetcher
from forgery_det.serving.http.metrics import Metrics
from forgery_det.serving.http.pipeline import Pipeline
from forgery_det.serving.http.problems import ClientGoneError, RefusalError
from forgery_det.serving.http.settings import ServeSettings
from forgery_det.serving.predictor import Predictor

STUCK_S = 60.0
"""A forward pass that takes longer than this is taken for a model that hangs."""

_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Drain:
    """Set by the server when it was told to end."""

    is_on: bool = False


class Service:
    """What the endpoints need.

    Args:
        predictor: The loaded bundle.
        settings: Limits, keys, URL rules.
        drain: Shared with the server.
        fetcher: For images by URL; None makes the usual one, tests bring their own resolver.
    """

    def __init__(
        self, predictor: Predictor, settings: ServeSettings, drain: Drain, fetcher: Fetcher | None = None
    ) -> None:
        limits = settings.limits
        self.predictor = predictor
        self.settings = settings
        self.drain = drain
        self._fetcher = fetcher or Fetcher(settings.fetch, limits.max_image_bytes)
        self._batcher: Batcher | None = None
        self.room = ByteRoom(limits.max_decoded_bytes)
        self.admission = Admission(limits, lambda: self._batcher.seconds_per_image if self._batcher else 1.0)
        self.metrics = Metrics(
            lambda: self.admission.requests,
            lambda: self.admission.images,
            lambda: self.admission.body_bytes,
            lambda: self.room.used_bytes,
        )
        self.metrics.model_info(predictor.facts.name, predictor.facts.version, predictor.format.name)
        self._pipeline: Pipeline | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Hold the batcher and the threads."""
        limits = self.settings.limits

        def on_batch(n_images: int, seconds: float) -> None:
            self.metrics.batch_images.observe(n_images)
            self.metrics.model_seconds.observe(seconds)

        batcher = Batcher(
            self.predictor.logits, batch_size=limits.batch_size, wait_s=limits.batch_wait_s, on_batch=on_batch
        )
        async with batcher:
            self._batcher = batcher
            self._pipeline = Pipeline(self.predictor, batcher, self._fetcher, limits, self.metrics, self.room)
            try:
                yield
            finally:
                self._pipeline.close()
                self._pipeline = self._batcher = None

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of the running service.

        Raises:
            RefusalError: `not_ready`: it does not run (yet, or any more).
        """
        if self._pipeline is None:
            raise RefusalError("not_ready", "Expected a running service, got one that has not started.")
        return self._pipeline

    def trouble(self, *, is_liveness: bool) -> RefusalError | None:
        """Return why the process is not ready (or, for liveness, should be replaced); None when all is well."""
        if self._batcher is None:
            return RefusalError("not_ready", "Expected a running service, got one that has not started.")
        stuck_s = self._batcher.stuck_s()
        if stuck_s > STUCK_S:
            return RefusalError(
                "not_ready", f"Expected forward passes below {STUCK_S:g} s, got one of {stuck_s:.0f} s."
            )
        if self.drain.is_on and not is_liveness:
            return RefusalError("shutting_down", "Expected a service that stays, got one that ends.")
        return None

    def check_open(self) -> None:
        """Refuse new work while the service ends.

        Raises:
            RefusalError: `shutting_down`.
        """
        if self.drain.is_on:
            raise RefusalError("shutting_down", "Expected a service that stays, got one that ends.", retry_after_s=1)

    async def within_limits(self, work: Awaitable[_Answer], receive: Receive) -> _Answer:
        """Wait for `work`, at most as long as a request may take and as long as its client stays.

        Raises:
            RefusalError: `timeout`.
            ClientGoneError: The client closed the connection.
        """
        limit_s = self.settings.limits.request_timeout_s
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({task, gone}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if gone.done():
                raise ClientGoneError
            raise RefusalError("timeout", f"Expected an answer within {limit_s:g} s, got none; it is abandoned.")
        finally:
            for one in (task, gone):
                one.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
