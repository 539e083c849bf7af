"""The keys that all API generators share in a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.base import INCIDENTAL

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParameters:
    """Keys that all API generators share; none of them decides the pixels.

    Args:
        base_url: Address of the API; the kind's own service where it is None.
        key_variable: Environment variable that holds the key, never the key itself; empty for a server without keys.
        concurrency: Requests under way at once.
        timeout_s: Longest time from a request to the last byte of its answer.
        connect_timeout_s: Longest wait for a connection.
        max_attempts: Requests for one job.
        lost_retries: Further requests for one job after answers that were paid for and lost.
        max_wait_s: Longest time one job waits for rate limits.
        stop_after_failures: Jobs that fail one after another before the run stops; 0 never stops it.
        usd_per_image: Price of an image where the registry knows none, or another one.
    """

    base_url: str | None = field(default=None, metadata=INCIDENTAL)
    key_variable: str | None = field(default=None, metadata=INCIDENTAL)
    concurrency: int = field(default=4, metadata=INCIDENTAL)
    timeout_s: float = field(default=180.0, metadata=INCIDENTAL)
    connect_timeout_s: float = field(default=10.0, metadata=INCIDENTAL)
    max_attempts: int = field(default=6, metadata=INCIDENTAL)
    lost_retries: int = field(default=1, metadata=INCIDENTAL)
    max_wait_s: float = field(default=900.0, metadata=INCIDENTAL)
    stop_after_failures: int = field(default=5, metadata=INCIDENTAL)
    usd_per_image: float | None = field(default=None, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected `{name}` of 1 or more, got {getattr(self, name)}.")
        for name in ("timeout_s", "connect_timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected `{name}` above 0, got {getattr(self, name)}.")
        for name in ("lost_retries", "max_wait_s", "stop_after_failures"):
            if getattr(self, name) < 0:
                raise ConfigError(f"Expected `{name}` of 0 or more, got {getattr(self, name)}.")
        if self.base_url is not None:
            _check_address(self.base_url)
        if self.key_variable and not _VARIABLE.fullmatch(self.key_variable):
            # The value is not repeated: it may be the key.
            raise ConfigError("Expected `key_variable` to name an environment variable, got something else (a key?).")


def check_extra_body(extra: Mapping[str, Any], own: Set[str]) -> None:
    """Refuse fields in `extra_body` that the request has anyway.

    Args:
        extra: What the recipe adds to the body of each request.
        own: Fields that a job or a key of the recipe sets.

    Raises:
        ConfigError: A field is named in both.
    """
    taken = sorted(own & set(extra))
    if taken:
        raise ConfigError(f"Expected `extra_body` without fields that are set otherwise, got {', '.join(taken)}.")


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not repeated: what stands there is likely a secret, and an address is written down with every image.
        raise ConfigError("Expected `base_url` without user, password, query or fragment, got one with.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"Expected `base_url` as an http or https address, got {address!r}.")
