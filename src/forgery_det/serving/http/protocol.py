"""uvicorn's HTTP/1.1 protocol with a time limit for request heads.

uvicorn closes idle connections after an answer, but waits without end for the first request, for the rest of a head
that arrives a byte a minute ("slowloris"), and for the rest of a body that was already answered. Here a connection that
owes us a head has `header_timeout_s` for all of it; then it is told 408 and closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedH11Protocol(H11Protocol):
    """One connection. `with_timeout` makes the class that a server is given."""

    header_timeout_s: float = 10.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a request is there; a second head starts it with its first byte."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing():
            self._stop()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._expire)

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _expire(self) -> None:
        self._head_timer = None
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE:
            head = [(b"content-length", b"0"), (b"connection", b"close")]
            self.transport.write(self.conn.send(h11.Response(status_code=408, headers=head)) or b"")
            self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()


def with_timeout(header_timeout_s: float) -> type[TimedH11Protocol]:
    """Return the protocol class with its time limit; uvicorn takes a class, not an instance."""
    return type("Protocol", (TimedH11Protocol,), {"header_timeout_s": header_timeout_s})
