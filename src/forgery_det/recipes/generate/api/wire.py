"""One HTTP exchange that cannot hang, flood or mislead: a transport under httpx that answers wholly or raises a fault.

It stands below whatever speaks the protocol, our own two clients and `google-genai` alike, so all three meet the same
rules: a time limit for the whole answer (a server that sends a byte a second passes every read timeout), a size limit
while reading, no compressed bodies (they can unpack to anything), JSON where JSON is due, no redirects (a key must not
follow one to another host), and every status outside of 2xx turned into an `ApiError`.
"""

from __future__ import annotations

import functools
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from forgery_det.recipes.generate.api.faults import ApiError, fault_of_status, lost_answer
from forgery_det.recipes.generate.api.retry import Clock
from forgery_det.recipes.sources.base import MAX_ITEM_BYTES

MAX_RESPONSE_BYTES = MAX_ITEM_BYTES * 3 // 2
"""An image of the largest size in base64, and some room."""

_POOL_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds of one exchange.

    Args:
        connect_s: Longest wait for a connection.
        total_s: Longest time from the request to the last byte of its answer.
        max_bytes: Largest answer.
    """

    connect_s: float = 10.0
    total_s: float = 180.0
    max_bytes: int = MAX_RESPONSE_BYTES


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of status 2xx.

    Args:
        content: The parsed JSON.
        headers: Response headers, names in lower case.
    """

    content: Any
    headers: Mapping[str, str]


class LimitedTransport(httpx.BaseTransport):
    """A transport with the rules of this module.

    Args:
        limits: Bounds of one exchange.
        clock: For `Retry-After` as a date.
        wants_json: Refuse answers of another content type.
    """

    def __init__(self, limits: WireLimits, clock: Clock, *, wants_json: bool) -> None:
        self._limits = limits
        self._clock = clock
        self._wants_json = wants_json
        self._inner: dict[str | None, httpx.HTTPTransport] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its whole answer.

        Raises:
            ApiError: There is none, it breaks a rule, or its status is outside of 2xx.
        """
        limits = self._limits
        ends_s = time.monotonic() + limits.total_s
        request.headers["accept-encoding"] = "identity"
        request.extensions = {
            **request.extensions,
            "timeout": {"connect": limits.connect_s, "read": limits.total_s, "write": limits.total_s, "pool": None},
        }
        response = self._send(request)
        try:
            body = self._read(response, ends_s)
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        if response.is_redirect:
            raise ApiError("rejected", f"{response.status_code} redirect, which is not followed: correct the address")
        if not response.is_success:
            raise fault_of_status(response.status_code, headers, body, self._clock.date())
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if self._wants_json and not (kind == "application/json" or kind.endswith("+json")):
            raise lost_answer("wrong_content_type", f"expected application/json, got {kind or 'no content type'}")
        kept = [(name, value) for name, value in headers.items() if name not in ("transfer-encoding", "content-length")]
        return httpx.Response(response.status_code, headers=kept, content=body, request=request)

    def close(self) -> None:
        """Close all connections."""
        for inner in self._inner.values():
            inner.close()

    def _through(self, url: httpx.URL) -> httpx.HTTPTransport:
        """Return the connections to a host: direct, or through the proxy that the environment names for it."""
        # httpx reads the environment only where it makes the transport itself.
        proxy = None if urllib.request.proxy_bypass(url.host) else urllib.request.getproxies().get(url.scheme)
        with self._lock:
            if proxy not in self._inner:
                pool = httpx.Limits(max_connections=_POOL_CONNECTIONS)
                self._inner[proxy] = httpx.HTTPTransport(verify=_trusted(), limits=pool, proxy=proxy)
            return self._inner[proxy]

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._through(request.url).handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise ApiError("connection", f"cannot connect: {error}", retry=True) from None
        except (httpx.WriteError, httpx.WriteTimeout) as error:
            raise ApiError("connection", f"connection lost while sending: {error}", retry=True) from None
        except httpx.TimeoutException:
            raise self._too_slow() from None
        except httpx.TransportError as error:
            # The request went out whole; whether it was worked on, nobody knows.
            raise lost_answer("connection", f"connection lost before the answer: {error}") from None

    def _read(self, response: httpx.Response, ends_s: float) -> bytes:
        # Only whole answers of 2xx are paid for; of the others the first bytes are enough.
        is_paid = response.is_success
        limit = self._limits.max_bytes
        if is_paid and response.headers.get("content-encoding", "identity").lower() != "identity":
            raise lost_answer("invalid_body", "expected an uncompressed body, got a compressed one", retry=False)
        received = bytearray()
        try:
            for chunk in _chunks(response):
                received += chunk
                if len(received) > limit:
                    if not is_paid:
                        return bytes(received[:limit])
                    raise lost_answer("oversized", f"expected at most {limit} bytes, got more", retry=False)
                if time.monotonic() > ends_s:
                    raise self._too_slow()
        except httpx.TimeoutException:
            raise self._too_slow() from None
        except httpx.TransportError as error:
            if is_paid:
                raise lost_answer("truncated", f"answer cut short after {len(received)} bytes: {error}") from None
        return bytes(received)

    def _too_slow(self) -> ApiError:
        return lost_answer("timeout", f"no whole answer within {self._limits.total_s:g} s")


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Return the context of all connections: reading the certificate authorities takes longer than a request."""
    return httpx.create_ssl_context()


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    # A transport's response has a raw stream; `iter_raw` would demand a request object that is not set yet.
    stream = response.stream
    assert isinstance(stream, httpx.SyncByteStream)
    yield from stream


class Wire:
    """JSON in and out, and files, over `LimitedTransport`.

    Args:
        headers: Sent with API requests, and never with downloads: these may lead to another host.
        limits: Bounds of one exchange.
        clock: Time.
    """

    def __init__(self, headers: Mapping[str, str], limits: WireLimits, clock: Clock) -> None:
        self.api = httpx.Client(transport=LimitedTransport(limits, clock, wants_json=True), headers=dict(headers))
        self.api_async = httpx.AsyncClient(verify=_trusted())
        self._files = httpx.Client(transport=LimitedTransport(limits, clock, wants_json=False))

    def post_json(self, url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Send JSON and return the JSON that comes back.

        Raises:
            ApiError: See `LimitedTransport`; also `invalid_body`.
        """
        return _reply(self.api.post(url, json=dict(body), headers=dict(headers)))

    def post_form(
        self, url: str, body: Mapping[str, str], files: Mapping[str, tuple[str, bytes, str]], headers: Mapping[str, str]
    ) -> Reply:
        """Send a multipart form with files `name -> (file name, bytes, media type)` and return the JSON.

        Raises:
            ApiError: As `post_json`.
        """
        return _reply(self.api.post(url, data=dict(body), files=dict(files), headers=dict(headers)))

    def fetch(self, url: str, *, allow_http: bool) -> bytes:
        """Download a file that an answer points to, without the key.

        Raises:
            ApiError: As `LimitedTransport`.
        """
        if urlsplit(url).scheme not in (("http", "https") if allow_http else ("https",)):
            raise lost_answer("invalid_body", "expected an https address of the image, got another", retry=False)
        return self._files.get(url).content

    def close(self) -> None:
        """Close all connections."""
        self.api.close()
        self._files.close()


def _reply(response: httpx.Response) -> Reply:
    try:
        content = json.loads(response.content)
    except (ValueError, RecursionError):
        raise lost_answer("invalid_body", "expected JSON, got something else or half of it") from None
    return Reply(content, {name.lower(): value for name, value in response.headers.items()})
