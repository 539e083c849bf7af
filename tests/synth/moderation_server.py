"""A moderation endpoint on loopback, `/v1/moderations`, with the faults that real ones have.

It gives scores by a function of the input, writes down every request, and plays the faults it was given, one a request,
before it answers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MARKER = "redsquare"


@dataclass(frozen=True)
class Fault:
    """Something else than an answer.

    `status` with `headers` and an error `body`; with status 200 the body is sent as it is, whatever it says; `hang_s`
    sends nothing at all for so long.
    """

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": {"message": "the server is unwell"}}'
    hang_s: float = 0.0


def marked_texts(content: Any) -> Mapping[str, float]:
    """Score texts that hold the marker high, everything else low."""
    return {"violence": 0.9 if isinstance(content, str) and MARKER in content else 0.1, "harassment": 0.02}


class ModerationServer:
    """The server; a context manager.

    Args:
        scores: The request's `input` -> category -> score; flagged is what has a score above 0.5.
        faults: Played first, one a request.
    """

    def __init__(
        self, scores: Callable[[Any], Mapping[str, float]] = marked_texts, faults: tuple[Fault, ...] = ()
    ) -> None:
        self.scores = scores
        self.faults = list(faults)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, body: Mapping[str, Any]) -> str:
        scores = dict(self.scores(body["input"]))
        result = {
            "flagged": max(scores.values()) > 0.5,
            "categories": {name: score > 0.5 for name, score in scores.items()},
            "category_scores": scores,
        }
        return json.dumps({"id": "modr-1", "model": f"{body['model']}-2024-09-26", "results": [result]})

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                    fault = outer.faults.pop(0) if outer.faults else None
                if self.path != "/v1/moderations":
                    fault = Fault(404)
                if fault is None:
                    self._send(200, outer._answer(body), {})
                elif fault.hang_s:
                    outer._closing.wait(fault.hang_s)
                    self.close_connection = True
                else:
                    self._send(fault.status, fault.body, fault.headers)

            def _send(self, status: int, text: str, headers: Mapping[str, str]) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
