"""From an upload to what is said of it: room, decoding in threads, a place in a batch, the decision.

Nothing that an image does ends more than that image: `ImageError`s and failures of the model become its `error`. When a
request gives up (time limit, closed connection), what has not begun is taken back; a decoder that already runs cannot
be stopped, so it keeps its thread and its room until it returns. Thus a storm of aborted requests costs no more memory
than the same number of honest ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from forgery_det.core.errors import ImageError
from forgery_det.core.image_facts import ImageFacts
from forgery_det.core.image_io import decode_image, read_facts
from forgery_det.serving.http.admission import ByteRoom
from forgery_det.serving.http.batcher import Batcher, ModelFailureError, Scored
from forgery_det.serving.http.fetch import Fetcher
from forgery_det.serving.http.logs import LOGGER
from forgery_det.serving.http.metrics import Metrics
from forgery_det.serving.http.multipart import Upload
from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.settings import Limits
from forgery_det.serving.predictor import Prediction, Predictor
from forgery_det.transforms.preprocess import ImageArray

PEAK_BYTES_PER_PIXEL = {"jpeg": 10, "gif": 8, "tiff": 13, "png": 14, "avif": 16, "webp": 21}
"""Peak memory of decoding, measured on 20 megapixels (docs/decoding.md)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is said of one image.

    Args:
        upload: What came.
        prediction: Logit, decision and warnings; None with an error.
        error: Reason and detail; None when there is a prediction.
        facts: Facts of the file, None when it could not be read.
        queue_s: Waiting for room, a decoding thread and the model.
        decode_s: Decoding and geometry.
        model_s: The forward pass that held it.
        batch: Images in that forward pass.
        provenance: What the file says of its origin, None when nobody asked.
    """

    upload: Upload
    prediction: Prediction | None = None
    error: tuple[str, str] | None = None
    facts: ImageFacts | None = None
    queue_s: float = 0.0
    decode_s: float = 0.0
    model_s: float = 0.0
    batch: int = 0
    provenance: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wants of its images, and the room it may take for fetched bytes."""

    operating_point: str | None
    provenance: bool
    take: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Decoded:
    pixels: ImageArray | None
    views: ImageArray
    facts: ImageFacts
    began: float
    seconds: float


class Pipeline:
    """Scores uploads.

    Args:
        predictor: The loaded bundle.
        batcher: Where images of all requests meet.
        fetcher: For images by URL.
        limits: Bounds.
        metrics: Where images are counted.
        room: For decoded images.
    """

    def __init__(
        self, predictor: Predictor, batcher: Batcher, fetcher: Fetcher, limits: Limits, metrics: Metrics, room: ByteRoom
    ) -> None:
        self._predictor = predictor
        self._batcher = batcher
        self._fetcher = fetcher
        self._limits = limits.decode_limits(predictor.facts.limits.max_pixels)
        self._max_seconds = limits.request_timeout_s  # nobody waits for a heat map any longer
        self._metrics = metrics
        self._room = room
        self.executor = ThreadPoolExecutor(limits.decode_threads, thread_name_prefix="decode")
        self._explain_executor = ThreadPoolExecutor(1, thread_name_prefix="explain")

    def close(self) -> None:
        """Let the threads end."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        self._explain_executor.shutdown(wait=False, cancel_futures=True)

    async def score(self, uploads: list[Upload], wish: Wish) -> list[Outcome]:
        """Return one outcome for each upload, in order."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._score_one(upload, wish)) for upload in uploads]
        outcomes = [task.result() for task in tasks]
        for outcome in outcomes:
            self._count(outcome)
        return outcomes

    async def explain(self, upload: Upload, grid: int) -> tuple[dict[str, Any], float, float]:
        """Return the heat map of one image, and the seconds of decoding and of the map.

        Raises:
            ImageError: The image cannot be used.
        """
        from forgery_det.serving.page.heatmap import occlusion

        if upload.error is not None:
            raise ImageError(*upload.error)
        facts = await self._run(partial(read_facts, upload.data, self._limits))
        taken = await self._room.enter(_peak_bytes(facts))
        decoded: _Decoded = await self._run(partial(self._decode, upload.data, True), taken)
        assert decoded.pixels is not None
        held = await self._room.enter(2 * decoded.pixels.nbytes)
        start = time.perf_counter()
        work = partial(occlusion, self._predictor, decoded.pixels, grid=grid, max_seconds=self._max_seconds)
        heatmap = await self._run(work, held, self._explain_executor)
        return heatmap.to_json(), decoded.seconds, time.perf_counter() - start

    async def _score_one(self, upload: Upload, wish: Wish) -> Outcome:
        outcome = Outcome(upload, error=upload.error)
        if outcome.error is not None:
            return outcome
        try:
            data = upload.data
            if upload.url is not None:
                data = await self._fetcher.fetch(upload.url)
                wish.take(len(data))
            outcome = replace(outcome, provenance=await self._provenance(data) if wish.provenance else None)
            decoded, scored, queue_s = await self._scored(data)
        except ImageError as error:
            return replace(outcome, error=(error.reason, error.detail))
        except RefusalError as error:  # no room for the bytes behind a URL
            return replace(outcome, error=(error.code, error.message))
        except ModelFailureError as error:
            LOGGER.error("model_failed", exc_info=error.__cause__ or error)
            return replace(outcome, error=("model_failed", "Expected a logit, got a failure of the model."))
        prediction = self._predictor.judge(
            upload.name or "", scored.logit, scored.score, decoded.facts, operating_point=wish.operating_point
        )
        return replace(
            outcome,
            prediction=prediction,
            facts=decoded.facts,
            queue_s=queue_s,
            decode_s=decoded.seconds,
            model_s=scored.model_s,
            batch=scored.batch,
        )

    async def _scored(self, data: bytes) -> tuple[_Decoded, Scored, float]:
        """Decode and score; the third value is the seconds of waiting."""
        start = time.perf_counter()
        with self._batcher.expect():
            facts = await self._run(partial(read_facts, data, self._limits))
            taken = await self._room.enter(_peak_bytes(facts))
            decoded: _Decoded = await self._run(partial(self._decode, data, False), taken)
        held = decoded.views.nbytes
        # Never waits for room: it was just given back, and a batch must not wait for images that wait for it.
        self._room.used_bytes += held
        try:
            scored = await self._batcher.submit(decoded.views)
        finally:
            self._room.leave(held)
        return decoded, scored, max(0.0, decoded.began - start) + scored.waited_s

    def _decode(self, data: bytes, keep_pixels: bool) -> _Decoded:
        start = time.perf_counter()
        decoded = decode_image(data, self._limits)
        views, _ = self._predictor.preprocess(decoded.image_HWC)
        pixels = decoded.image_HWC if keep_pixels else None
        return _Decoded(pixels, views, decoded.facts, start, time.perf_counter() - start)

    async def _provenance(self, data: bytes) -> dict[str, Any]:
        from forgery_det.serving.page.provenance import provenance

        found: dict[str, Any] = await self._run(lambda: provenance(data).to_json())
        return found

    async def _run(self, work: Callable[[], Any], taken: int = 0, executor: ThreadPoolExecutor | None = None) -> Any:
        """Run `work` in a thread; room that was taken for it is given back when the thread is done with it."""
        loop = asyncio.get_running_loop()
        try:
            future: Future[Any] = (executor or self.executor).submit(work)
        except RuntimeError:
            self._room.leave(taken)  # shutting down
            raise
        if taken:
            future.add_done_callback(lambda _: _call(loop, self._room.leave, taken))
        return await asyncio.wrap_future(future)

    def _count(self, outcome: Outcome) -> None:
        if outcome.prediction is None:
            self._metrics.count_error((outcome.error or ("other", ""))[0])
            return
        self._metrics.images.labels(str(outcome.prediction.decision)).inc()
        self._metrics.decode_seconds.observe(outcome.decode_s)
        self._metrics.queue_seconds.observe(outcome.queue_s)


def _peak_bytes(facts: ImageFacts) -> int:
    return facts.width_px * facts.height_px * PEAK_BYTES_PER_PIXEL.get(facts.codec, 21)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[int], None], value: int) -> None:
    """Call on the loop's thread; a loop that has ended needs no counts."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function, value)
