"""An image API on this machine that speaks three protocols and misbehaves by plan.

OpenAI (`/v1/images/generations`, `/v1/images/edits`), Gemini (`:generateContent`), Ark
(`/api/v3/images/generations`), and files under `/files/`. Images are seeded by their prompt. A plan gives a prompt its
faults, one a request, in order; after the last one requests succeed. What was asked is counted.
"""

from __future__ import annotations

import base64
import email
import itertools
import json
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np

from forgery_det.core.image_io import encode_image

Fault = Callable[["ImageApi"], None]


def image_of(prompt: str, side_px: int = 64) -> bytes:
    """The PNG that a prompt brings, whatever the protocol."""
    rng = np.random.default_rng(zlib.crc32(prompt.encode()))
    return encode_image(rng.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8), "png", None)


class ImageServer(ThreadingHTTPServer):
    """The server, its plan and its counts."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ImageApi)
        self.lock = threading.Lock()
        self.plans: dict[str, list[Fault]] = {}
        self.default: Fault | None = None
        self.counts: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.n_open = self.max_open = 0
        self.delay_s = 0.0
        self.released = threading.Event()
        self.usage: dict[str, Any] | None = None
        self.response_headers: dict[str, str] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def plan(self, prompt: str, *faults: Fault) -> None:
        self.plans[prompt] = list(faults)

    def begin(self, prompt: str) -> Fault | None:
        with self.lock:
            self.counts[prompt] += 1
            self.n_open += 1
            self.max_open = max(self.max_open, self.n_open)
            faults = self.plans.get(prompt)
            return faults.pop(0) if faults else self.default

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that hang up: many tests make them."""


@contextmanager
def running_server() -> Iterator[ImageServer]:
    server = ImageServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class ImageApi(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ImageServer
    prompt: str
    protocol: str
    models: ClassVar[dict[str, str]] = {"/v1/": "openai", "/api/v3/": "ark", "/v1beta/": "google"}

    def do_GET(self) -> None:
        name = self.path.removeprefix("/files/")
        fault = self.server.begin(f"GET {name}")
        with self.server.lock:
            self.server.headers.append({key.lower(): value for key, value in self.headers.items()})
        try:
            self.protocol, self.prompt = "file", name
            if fault is not None:
                fault(self)
            else:
                self.send(200, image_of(name), "image/png")
        finally:
            self._end()

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        if self.path.startswith("http://"):  # asked as a proxy
            self.path = urlsplit(self.path).path
        self.protocol = next(name for start, name in self.models.items() if self.path.startswith(start))
        body = self._parsed(raw)
        self.prompt = self._prompt(body)
        fault = self.server.begin(self.prompt)
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append({key.lower(): value for key, value in self.headers.items()})
        try:
            if self.server.delay_s:
                time.sleep(self.server.delay_s)
            if fault is not None:
                fault(self)
            else:
                self.succeed()
        finally:
            self._end()

    def _end(self) -> None:
        with self.server.lock:
            self.server.n_open -= 1

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        kind = self.headers["content-type"]
        if kind.startswith("application/json"):
            content: dict[str, Any] = json.loads(raw)
            return content
        parts = email.message_from_bytes(f"Content-Type: {kind}\n\n".encode() + raw)
        payload = parts.get_payload()
        assert isinstance(payload, list)
        return {
            str(part.get_param("name", header="content-disposition")): (
                part.get_payload(decode=True)
                if part.get_filename()
                else bytes(part.get_payload(decode=True) or b"").decode()
            )
            for part in payload
        }

    def _prompt(self, body: dict[str, Any]) -> str:
        if self.protocol != "google":
            return str(body["prompt"])
        return str(body["contents"][0]["parts"][0]["text"])

    def send(self, status: int, data: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-request-id", f"req-{self.prompt[:20]}")
        for name, value in {**self.server.response_headers, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def send_json(self, status: int, content: Any, **headers: str) -> None:
        self.send(status, json.dumps(content).encode(), **headers)

    def succeed(self, data: bytes | None = None, encoded: str | None = None) -> None:
        data = image_of(self.prompt) if data is None else data
        text = base64.b64encode(data).decode() if encoded is None else encoded
        with self.server.lock:
            self.server.made[self.prompt] += 1
        self.send_json(200, self.wrapped(text))

    def wrapped(self, text: str) -> dict[str, Any]:
        usage = self.server.usage
        if self.protocol == "google":
            part = {"inlineData": {"mimeType": "image/png", "data": text}}
            answer: dict[str, Any] = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
            answer |= {"modelVersion": "model-as-served", "responseId": f"resp-{self.prompt[:20]}"}
            return answer | ({"usageMetadata": usage} if usage else {})
        answer = {"created": 1700000000, "data": [{"b64_json": text}], "model": "model-as-served"}
        return answer | ({"usage": usage} if usage else {})

    def log_message(self, *_: Any) -> None:
        """Write nothing to the tests' output."""

    def cut(self) -> None:
        """Close the connection with a reset in place of an end."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


# Faults. Each takes the request and answers it in its own way.


def status(code: int, error: Any = None, **headers: str) -> Fault:
    content = {"error": error if isinstance(error, dict) else {"message": error or f"status {code}"}}
    return lambda api: api.send_json(code, content, **headers)


def too_many(retry_after: str | None = None) -> Fault:
    return status(429, "slow down", **({} if retry_after is None else {"Retry_After": retry_after}))


def moderation_blocked() -> Fault:
    words = "Your request was rejected by the safety system. safety_violations=[violence]."
    return status(400, {"message": words, "code": "moderation_blocked", "type": "image_generation_user_error"})


def answers(content: Any) -> Fault:
    return lambda api: api.send_json(200, content)


def raw(data: bytes, kind: str = "application/json", **headers: str) -> Fault:
    return lambda api: api.send(200, data, kind, **headers)


def hang() -> Fault:
    def fault(api: ImageApi) -> None:
        api.server.released.wait(20)
        api.close_connection = True

    return fault


def truncated() -> Fault:
    def fault(api: ImageApi) -> None:
        data = json.dumps(api.wrapped(base64.b64encode(image_of(api.prompt)).decode())).encode()
        api.send_response(200)
        api.send_header("Content-Type", "application/json")
        api.send_header("Content-Length", str(len(data)))
        api.end_headers()
        api.wfile.write(data[: len(data) // 2])
        api.wfile.flush()
        api.close_connection = True

    return fault


def drip(every_s: float = 0.05) -> Fault:
    """A byte now and then: no read timeout ever runs out."""

    def fault(api: ImageApi) -> None:
        api.send_response(200)
        api.send_header("Content-Type", "application/json")
        api.send_header("Content-Length", "100000")
        api.end_headers()
        for _ in range(400):
            try:
                api.wfile.write(b" ")
                api.wfile.flush()
            except OSError:
                break
            if api.server.released.wait(every_s):
                break
        api.close_connection = True

    return fault


def reset() -> Fault:
    return lambda api: api.cut()


def invalid_base64() -> Fault:
    return lambda api: api.succeed(encoded="!!! not base64 !!!")


def not_an_image() -> Fault:
    return lambda api: api.succeed(b"<html>An error page that says 200.</html>")


def oversized(n_bytes: int) -> Fault:
    return lambda api: api.succeed(image_of(api.prompt) + bytes(n_bytes))


def link(name: str) -> Fault:
    """The address of a file instead of the file."""
    return lambda api: api.send_json(200, {"data": [{"url": f"{api.server.address}/files/{name}"}]})


def truncated_file() -> Fault:
    def fault(api: ImageApi) -> None:
        data = image_of(api.prompt)
        api.send_response(200)
        api.send_header("Content-Type", "image/png")
        api.send_header("Content-Length", str(len(data)))
        api.end_headers()
        api.wfile.write(data[:40])
        api.close_connection = True

    return fault


def raw_status(code: int, data: bytes) -> Fault:
    return lambda api: api.send(code, data)


def together(count: int) -> Fault:
    """Images for requests that come `count` at once; fewer break the barrier and are not answered."""
    barrier = threading.Barrier(count)

    def fault(api: ImageApi) -> None:
        barrier.wait(timeout=20)
        api.succeed()

    return fault


def after(event: threading.Event) -> Fault:
    """An image, as soon as something has happened."""

    def fault(api: ImageApi) -> None:
        assert event.wait(timeout=20)
        api.succeed()

    return fault


def hold_after(count: int, resume: threading.Event) -> Fault:
    """So many images, then silence until `resume` is set."""

    numbers = itertools.count()

    def fault(api: ImageApi) -> None:
        if next(numbers) >= count:
            resume.wait(timeout=60)
        else:
            api.succeed()

    return fault
