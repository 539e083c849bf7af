"""Request heads have a time limit on a real socket, and whoever keeps it is not touched."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_connection, socket
from typing import Any

import pytest
import uvicorn

from forgery_det.serving.http.app import create_app
from forgery_det.serving.http.protocol import with_timeout
from forgery_det.serving.predictor import Predictor
from synth.service import FORM_TYPE, form, plain_png

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def listening(app: Any) -> Iterator[int]:
    """Serve in a thread, with 0.2 s for a head; gives the port."""
    config = uvicorn.Config(app, port=0, http=with_timeout(0.2), ws="none", log_config=None, timeout_keep_alive=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def port(predictor: Predictor) -> Iterator[int]:
    with listening(create_app(predictor)) as number:
        yield number


def read_all(peer: socket) -> bytes:
    peer.settimeout(10)
    found = b""
    try:
        while data := peer.recv(65_536):
            found += data
    except ConnectionError:
        return found
    return found


@pytest.mark.parametrize("start", [b"", b"GET / HT", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX: y"])
def test_an_unfinished_head_is_told_408_and_closed(port: int, start: bytes) -> None:
    with create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(start)
        assert read_all(peer).startswith(b"HTTP/1.1 408 ")


def test_bytes_that_drip_do_not_buy_time(port: int) -> None:
    with create_connection(("127.0.0.1", port)) as peer:
        peer.settimeout(0.02)
        for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 200:
            try:
                peer.sendall(bytes([byte]))
                if peer.recv(12):
                    return  # 408 came long before the 200 bytes were through
            except TimeoutError:
                continue
        pytest.fail("the head was waited for without end")


def test_a_second_request_and_a_slow_body_are_not_touched(port: int) -> None:
    body = form([("x.png", plain_png(255))])
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM_TYPE}\r\nContent-Length: {len(body)}\r\n"
    with create_connection(("127.0.0.1", port)) as peer:
        for _ in range(2):
            peer.sendall(HEAD)
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                answer += peer.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)
        peer.sendall(head.encode() + b"Connection: close\r\n\r\n" + body[:50])
        time.sleep(0.4)
        peer.sendall(body[50:])
        assert read_all(peer).startswith(b"HTTP/1.1 200 ")


def test_a_refusal_reaches_a_client_that_still_sends(port: int) -> None:
    with create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 30000000\r\n\r\n"
        )
        for _ in range(30):
            try:
                peer.sendall(bytes(100_000))
            except ConnectionError:
                break
            time.sleep(0.001)
        answer = read_all(peer)
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"unsupported_media_type" in answer
