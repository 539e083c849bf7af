"""Structured logs: one JSON object a line, never image content, never file names unless asked for.

A service sees other people's pictures; its log outlives them. A line has what operations need (request id, route,
status, counts, timings) and nothing that came from the client but its request id, if that is a plain word.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("forgery_det.serve")
_PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class RequestRecord:
    """What is known of one request at its end; filled while it runs, so it is the one mutable record here."""

    request_id: str
    method: str
    route: str
    status: int = 499
    code: str | None = None
    n_images: int = 0
    n_failed: int = 0
    bytes_in: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)
    names: list[str | None] | None = None


def request_id_of(offered: str | None) -> str:
    """Return the client's request id if it is a plain word, a fresh one otherwise.

    Example:
        >>> request_id_of("job-7"), len(request_id_of('x" evil'))
        ('job-7', 32)
    """
    return offered if offered is not None and _PLAIN_ID.fullmatch(offered) else uuid.uuid4().hex


def log_request(record: RequestRecord) -> None:
    """Write the line of a finished request."""
    values = {key: value for key, value in asdict(record).items() if value is not None}
    LOGGER.log(logging.ERROR if record.status >= 500 else logging.INFO, "request", extra={"fields": values})


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    Example:
        >>> record = logging.LogRecord("x", logging.INFO, "", 0, "started", None, None)
        >>> sorted(json.loads(JsonFormatter().format(record)))
        ['event', 'level', 'logger', 'time']
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            # Frames, not messages: a library's message may quote what it was given.
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            line["trace"] = _frames(error)
        return json.dumps(line, ensure_ascii=False)


def _frames(error: BaseException) -> list[str]:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return frames[-12:]


def log_config(level: str) -> dict[str, Any]:
    """Return the logging configuration of the process: JSON lines on standard error, uvicorn's lines included."""
    quiet = {"level": "WARNING", "handlers": ["lines"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "forgery_det.serving.http.logs.JsonFormatter"}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {
            "forgery_det.serve": {"level": level.upper(), "handlers": ["lines"], "propagate": False},
            "uvicorn.error": quiet | {"level": level.upper()},
            "uvicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            # Its warnings quote single bytes of uploads.
            "python_multipart": {"level": "CRITICAL", "handlers": [], "propagate": False},
            "asyncio": quiet,
        },
    }
