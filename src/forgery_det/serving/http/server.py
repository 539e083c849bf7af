"""One uvicorn process around the application: bind, serve, drain on SIGTERM or Ctrl-C, exit cleanly."""

from __future__ import annotations

import ctypes
import logging.config
import signal
import sys
from dataclasses import dataclass
from types import FrameType

import uvicorn

from forgery_det.serving.http.app import create_app
from forgery_det.serving.http.logs import log_config
from forgery_det.serving.http.protocol import with_timeout
from forgery_det.serving.http.service import Drain
from forgery_det.serving.http.settings import ServeSettings
from forgery_det.serving.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen.

    Args:
        host: Name or address; loopback unless the operator opens it.
        port: 0 lets the system choose; the log says which.
        certificate: PEM file with the certificate chain for TLS, None for plain HTTP.
        private_key: PEM file with its key.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: str | None = None
    private_key: str | None = None


class _Server(uvicorn.Server):
    """A server that tells the application when it begins to end."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new work from now on; what is in flight is answered."""
        self._drain.is_on = True
        super().handle_exit(sig, frame)


def serve(predictor: Predictor, settings: ServeSettings, address: Address, *, log_level: str = "info") -> bool:
    """Serve until a signal ends it; requests in flight are answered first.

    Args:
        predictor: The loaded bundle.
        settings: Limits, keys and URL rules.
        address: Where to listen.
        log_level: `debug`, `info`, `warning` or `error`.

    Returns:
        Whether it listened at all; False when the address could not be bound (the log says why).
    """
    limits = settings.limits
    drain = Drain()
    _give_memory_back()
    configuration = log_config(log_level)
    logging.config.dictConfig(configuration)
    config = uvicorn.Config(
        create_app(predictor, settings, drain=drain),
        host=address.host,
        port=address.port,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.private_key,
        http=with_timeout(limits.header_timeout_s),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.max_connections,
        timeout_graceful_shutdown=max(1, round(limits.shutdown_timeout_s)),
        backlog=min(2048, 2 * limits.max_connections),
    )
    server = _Server(config, drain)
    # uvicorn raises the signals it handled once more when it is done. Ending by a signal is success here.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit:  # the address is taken; uvicorn has logged it
        return False
    return server.started


_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Numbers of `mallopt` in glibc's malloc.h."""


def _give_memory_back() -> None:
    """Let glibc return the memory of large images to the system.

    By default its threshold for separate mappings rises to 32 MiB with use, and each thread gets a heap of its own, so
    freed pictures leave holes that stay with the process. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_ARENA_MAX, 2)
