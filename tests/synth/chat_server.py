"""A chat endpoint on loopback, `/v1/chat/completions`, with the faults that real ones have.

It answers by a function of the request, writes down every request it gets, and plays the faults it was given, one a
request, before it answers.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """An answer with status 200."""

    text: str | None
    finish: str = "stop"
    refusal: str | None = None
    choices: bool = True


@dataclass(frozen=True)
class Fault:
    """Something else than an answer.

    `status` with `headers` and an error body; `hang_s` waits first; `truncated` promises more bytes than it sends;
    `half_json` sends half a body and calls it whole.
    """

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=lambda: {"message": "the server is unwell"})
    hang_s: float = 0.0
    truncated: bool = False
    half_json: bool = False


_MORE = (
    "standing in deep snow under a grey sky, seen from the side",
    "while soft light falls through old birch trees and a thin river freezes behind them",
)


def longer(body: Mapping[str, Any]) -> Answer:
    """Answer with the user's text and words that it does not have yet."""
    text = user_text(body)
    return Answer(f"{text} {next(more for more in _MORE if more not in text)}")


def user_text(body: Mapping[str, Any]) -> str:
    """Return what the user's turn says."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "a picture"


class ChatServer:
    """The server; a context manager.

    Args:
        answer: Body of a request -> answer or fault.
        faults: Played first, one a request.
    """

    def __init__(self, answer: Callable[[Mapping[str, Any]], Answer | Fault] = longer, faults: tuple[Fault, ...] = ()):
        self.answer = answer
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

    @property
    def texts(self) -> list[str]:
        """What was asked for, in the order in which the requests came."""
        return [user_text(body) for body in self.bodies]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, key: str | None, body: dict[str, Any]) -> tuple[int, Answer | Fault]:
        with self._lock:
            self.bodies.append(body)
            self.keys.append(key)
            number = len(self.bodies)
            fault = self.faults.pop(0) if self.faults else None
        return number, fault or self.answer(body)

    def _handler(outer) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number, reply = outer._next(self.headers.get("Authorization"), body)
                if self.path != "/v1/chat/completions":
                    reply = Fault(404, error={"message": f"no {self.path}"})
                if isinstance(reply, Answer):
                    self._send(200, _completion(number, body, reply), {})
                    return
                if reply.hang_s:
                    outer._closing.wait(reply.hang_s)
                    self.close_connection = True
                    return
                whole = _completion(number, body, Answer("cut off"))
                if reply.half_json:
                    self._send(200, whole[: len(whole) // 2], {})
                elif reply.truncated:
                    self._send(200, whole, {}, promised=len(whole) + 100)
                    self.close_connection = True
                else:
                    self._send(reply.status, json.dumps({"error": dict(reply.error)}).encode(), reply.headers)

            def _send(self, status: int, data: bytes, headers: Mapping[str, str], promised: int | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data) if promised is None else promised))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _completion(number: int, body: Mapping[str, Any], answer: Answer) -> bytes:
    message = {"role": "assistant", "content": answer.text, "refusal": answer.refusal}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish}
    value = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{body['model']}-2026-01-01",
        "choices": [choice] if answer.choices else [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
    }
    return json.dumps(value).encode()
