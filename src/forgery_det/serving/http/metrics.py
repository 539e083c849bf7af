"""Prometheus metrics of one service process, in a registry of their own (several apps may live in one test process).

Labels come from closed lists (routes, statuses, reasons of the decoder), so a client cannot make new series.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REASON = re.compile(r"[a-z_]{1,40}")


class Metrics:
    """The metrics that `docs/serving.md` lists.

    Args:
        requests: Requests in flight, read at each scrape.
        images: Images in flight.
        body_bytes: Bytes of bodies held.
        decoded_bytes: Room taken by decoded images.

    Example:
        >>> metrics = Metrics(lambda: 1, lambda: 0, lambda: 0, lambda: 0)
        >>> metrics.images.labels("real").inc()
        >>> b'forgery_det_images_total{outcome="real"} 1.0' in metrics.render()
        True
    """

    def __init__(
        self,
        requests: Callable[[], float],
        images: Callable[[], float],
        body_bytes: Callable[[], float],
        decoded_bytes: Callable[[], float],
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "forgery_det_requests",
            "Requests by route and status (499: the client left)",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "forgery_det_request_seconds",
            "From the head of a request to its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refusals = Counter("forgery_det_refusals", "Refused requests by code", ["code"], registry=registry)
        self.images = Counter("forgery_det_images", "Images by outcome", ["outcome"], registry=registry)
        self.image_errors = Counter(
            "forgery_det_image_errors", "Images without a score by reason", ["reason"], registry=registry
        )
        self.batch_images = Histogram(
            "forgery_det_batch_images", "Images of a forward pass", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.model_seconds = self._seconds("model", "A forward pass")
        self.decode_seconds = self._seconds("decode", "Decoding and geometry of an image")
        self.queue_seconds = self._seconds("queue", "Waiting of an image")
        for name, text, read in (
            ("requests_in_flight", "Requests in flight", requests),
            ("images_in_flight", "Images in flight", images),
            ("body_bytes", "Bytes of request bodies held", body_bytes),
            ("decoded_bytes", "Room taken by decoded images", decoded_bytes),
        ):
            Gauge(f"forgery_det_{name}", text, registry=registry).set_function(read)

    def _seconds(self, name: str, text: str) -> Histogram:
        return Histogram(f"forgery_det_{name}_seconds", text, buckets=_SECONDS, registry=self.registry)

    def model_info(self, name: str, version: str, model_format: str) -> None:
        """Say which model answers."""
        labels = ["name", "version", "format"]
        Gauge("forgery_det_model_info", "1, with the model as labels", labels, registry=self.registry).labels(
            name, version, model_format
        ).set(1)

    def count_error(self, reason: str) -> None:
        """Count an image without a score."""
        self.images.labels("error").inc()
        self.image_errors.labels(reason if _REASON.fullmatch(reason) else "other").inc()

    def render(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)
