"""What surrounds every request: id, key, security headers, the log line, metrics, and a clean end of the connection.

Pure ASGI, since Starlette's `BaseHTTPMiddleware` hides the client's disconnection from the endpoint.

**Lingering close.** A refusal may be sent while the client still uploads. Closing then makes the kernel answer the rest
with a reset, and the client may lose our answer. So the answer goes out whole, what still arrives is thrown away for a
moment, and only then the connection is closed (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forgery_det.serving.http.auth import offered_key, opens
from forgery_det.serving.http.logs import LOGGER, RequestRecord, log_request, request_id_of
from forgery_det.serving.http.metrics import Metrics
from forgery_det.serving.http.problems import ClientGoneError, RefusalError

RECORD = "forgery_det.record"
"""Key of the `RequestRecord` in the ASGI scope."""

PROTECTED = ("/v1/", "/metrics")
"""Paths that ask for the key, if there is one."""

LINGER_S, LINGER_BYTES = 2.0, 64 * 2**20

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    """Return the record of the request."""
    record: RequestRecord = scope[RECORD]
    return record


class Gate:
    """The outermost middleware.

    Args:
        app: What answers.
        keys: API keys; empty for none.
        metrics: Where requests are counted.
        routes: Paths that are metrics labels; all others are `other`.
    """

    def __init__(self, app: ASGIApp, *, keys: tuple[bytes, ...], metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        headers = Headers(scope=scope)
        path = scope["path"]
        record = RequestRecord(
            request_id_of(headers.get("x-request-id")), scope["method"], path if path in self._routes else "other"
        )
        scope[RECORD] = record
        exchange = _Exchange(receive, send, record, headers, path)
        try:
            if path.startswith(PROTECTED) and not opens(offered_key(headers), self._keys):
                record.code = "invalid_api_key"
                refusal = RefusalError("invalid_api_key", "Expected a valid API key, got none or a wrong one.")
                await refusal.response(record.request_id)(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except ClientGoneError:
            record.code = "client_gone"
        except Exception as error:  # noqa: BLE001 - a defect of ours must answer 500 and never end the process
            LOGGER.error("defect", exc_info=error, extra={"fields": {"request_id": record.request_id}})
            record.code = "internal_error"
            if not exchange.is_started:
                refusal = RefusalError("internal_error", "A defect of the service. Its log has the request id.")
                await refusal.response(record.request_id)(scope, exchange.receive, exchange.send)
        finally:
            self._finish(record, time.perf_counter() - start)

    def _finish(self, record: RequestRecord, seconds: float) -> None:
        record.timings_ms["total_ms"] = round(1000 * seconds, 2)
        self._metrics.requests.labels(record.route, str(record.status)).inc()
        self._metrics.request_seconds.labels(record.route).observe(seconds)
        if record.code is not None:
            self._metrics.refusals.labels(record.code).inc()
        if record.route not in ("/healthz", "/readyz", "/metrics") or LOGGER.isEnabledFor(logging.DEBUG):
            log_request(record)


class _Exchange:
    """Both directions of one request, watched."""

    def __init__(self, receive: Receive, send: Send, record: RequestRecord, headers: Headers, path: str) -> None:
        self._receive = receive
        self._send = send
        self._record = record
        self._path = path
        self._has_body_left = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._waits_for_continue = "expect" in headers
        self._lingers = False
        self.is_started = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits_for_continue = False
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._has_body_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            self._record.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["X-Request-ID"] = self._record.request_id
            if self._path.startswith(PROTECTED):
                headers.setdefault("Cache-Control", "no-store")
            if self._has_body_left:
                self._lingers = True
                headers["Connection"] = "close"
        elif self._lingers and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        if self._waits_for_continue:
            return  # the client has not begun and will not, now that it has an answer
        n_bytes = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while self._has_body_left and n_bytes < LINGER_BYTES:
                    n_bytes += len((await self.receive()).get("body", b""))
        except TimeoutError:
            return
