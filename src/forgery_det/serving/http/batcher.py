"""Dynamic batching: images of all requests share forward passes.

One asyncio task takes what waits, groups images of one shape, and runs the model in one thread. While the model works,
the next images gather by themselves, so batches grow with the load. A batch that is not full waits at most `wait_s`,
and only while other images are known to be on their way (`expect`): a lonely image never waits.

The task cannot die of what it is given. An error of the model, or a value that is not finite, is looked for image by
image, so that it stays with the image that caused it. Whoever gave up (timeout, closed connection) is skipped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from forgery_det.transforms.preprocess import ImageArray

Model = Callable[[ImageArray], tuple[np.ndarray, np.ndarray]]
"""uint8 views [B, (V,) H, W, 3] -> logit_B, score_B."""

MAX_BATCH_BYTES = 256 * 2**20
"""Float32 input of one forward pass; full-size images go in smaller batches, one at the least."""

_SMOOTHING = 0.2


class ModelFailureError(Exception):
    """The model failed on one image; the cause is chained."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model said of one image.

    Args:
        logit: Unbounded, higher = generated.
        score: Calibrated probability, in [0, 1].
        waited_s: Seconds between submission and the forward pass.
        model_s: Seconds of the forward pass.
        batch: Images in it.
    """

    logit: float
    score: float
    waited_s: float
    model_s: float
    batch: int


@dataclass(slots=True, eq=False)
class _Job:
    views: ImageArray
    answer: asyncio.Future[Scored]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Gathers images into forward passes.

    Args:
        model: Called from one thread, one call at a time.
        batch_size: Most images of a forward pass.
        wait_s: Longest wait for a batch to fill.
        on_batch: Told the size and the seconds of each forward pass.

    Example:
        >>> def halves(views: ImageArray) -> tuple[np.ndarray, np.ndarray]:
        ...     logit_B = views.reshape(len(views), -1).mean(1) - 128
        ...     return logit_B, 1 / (1 + np.exp(-logit_B))
        >>> async def main() -> float:
        ...     async with Batcher(halves, batch_size=4, wait_s=0.01) as batcher:
        ...         return (await batcher.submit(np.full((8, 8, 3), 130, np.uint8))).logit
        >>> asyncio.run(main())
        2.0
    """

    def __init__(
        self, model: Model, *, batch_size: int, wait_s: float, on_batch: Callable[[int, float], None] | None = None
    ) -> None:
        self._model = model
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._arrival = asyncio.Event()
        self._expected = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None
        self._busy_since: float | None = None
        self.seconds_per_image = 0.1

    async def __aenter__(self) -> Batcher:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name="batcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the task; whoever still waits is told so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for job in self._jobs:
            job.answer.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Images that wait for the model."""
        return len(self._jobs)

    def stuck_s(self) -> float:
        """Return for how long the present forward pass has run, 0 when there is none; inf when the task has ended."""
        if self._task is None or self._task.done():
            return float("inf")
        return 0.0 if self._busy_since is None else time.perf_counter() - self._busy_since

    @contextmanager
    def expect(self) -> Iterator[None]:
        """Tell that an image is on its way: a batch may wait for it."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._arrival.set()

    async def submit(self, views: ImageArray) -> Scored:
        """Score one image.

        Args:
            views: uint8, [(V,) H, W, 3].

        Raises:
            ModelFailureError: The model failed on this image, or gave a value that is not finite.
        """
        job = _Job(views, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrival.set()
        return await job.answer

    async def _run(self) -> None:
        while True:
            await self._gathered()
            jobs = self._take()
            if jobs:
                await self._score(jobs)

    async def _gathered(self) -> None:
        """Return when a batch should go: full, or nothing more on its way, or waited long enough."""
        while not self._jobs:
            self._arrival.clear()
            await self._arrival.wait()
        deadline = time.perf_counter() + self._wait_s
        while self._expected and len(self._jobs) < self._batch_size:
            left_s = deadline - time.perf_counter()
            self._arrival.clear()
            try:
                await asyncio.wait_for(self._arrival.wait(), max(left_s, 0))
            except TimeoutError:
                return

    def _take(self) -> list[_Job]:
        """Remove the oldest living job and those behind it that fit into one array with it."""
        taken: list[_Job] = []
        left: deque[_Job] = deque()
        room = self._batch_size
        for job in self._jobs:
            if job.answer.done():  # its request gave up
                continue
            if taken and (len(taken) >= room or job.views.shape != taken[0].views.shape):
                left.append(job)
                continue
            if not taken:
                room = min(room, max(1, MAX_BATCH_BYTES // (4 * job.views.nbytes)))
            taken.append(job)
        self._jobs = left
        return taken

    async def _score(self, jobs: list[_Job]) -> None:
        start = time.perf_counter()
        self._busy_since = start
        loop = asyncio.get_running_loop()
        try:
            outcomes = await loop.run_in_executor(self._executor, self._outcomes, [job.views for job in jobs])
        finally:
            self._busy_since = None
        seconds = time.perf_counter() - start
        self.seconds_per_image += _SMOOTHING * (seconds / len(jobs) - self.seconds_per_image)
        if self._on_batch is not None:
            self._on_batch(len(jobs), seconds)
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.answer.done():
                continue
            if isinstance(outcome, ModelFailureError):
                job.answer.set_exception(outcome)
            else:
                logit, score = outcome
                job.answer.set_result(Scored(logit, score, start - job.since, seconds, len(jobs)))

    def _outcomes(self, views: list[ImageArray]) -> list[tuple[float, float] | ModelFailureError]:
        """Run the model; on any trouble again, image by image. Never raises: it runs in the model's thread."""
        try:
            logit_B, score_B = self._model(np.stack(views))
            pairs = list(zip(map(float, logit_B), map(float, score_B), strict=True))
            if len(pairs) == len(views) and np.isfinite(pairs).all():
                return list(pairs)
            trouble = ModelFailureError(f"Expected {len(views)} finite logits, got {len(pairs)}, or not finite ones.")
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises must not end the only model thread
            trouble = ModelFailureError(f"{type(error).__name__}: {error}")
            trouble.__cause__ = error
        if len(views) == 1:
            return [trouble]
        return [outcome for one in views for outcome in self._outcomes([one])]
