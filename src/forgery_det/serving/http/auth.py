"""The optional API key: where it comes from, and how it is compared.

Keys are compared as digests of equal length in constant time, so the answer's delay tells nothing about a key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers

from forgery_det.core.errors import ConfigError

VARIABLE = "FORGERY_DET_API_KEY"
MIN_LENGTH = 16


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """Return the keys that open the service; empty when none is set.

    Args:
        file: One key a line, so that an old and a new key hold at the same time; None for no file.
        environment: May hold one more key in `FORGERY_DET_API_KEY`.

    Raises:
        ConfigError: The file cannot be read or holds no key, or a key is shorter than 16 characters.

    Example:
        >>> read_keys(None, {"FORGERY_DET_API_KEY": "sixteen-letters!"})
        (b'sixteen-letters!',)
    """
    keys = [environment[VARIABLE].strip()] if environment.get(VARIABLE, "").strip() else []
    if file is not None:
        try:
            lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeError) as error:
            raise ConfigError(
                f"Expected a readable file with API keys, got {type(error).__name__} ({file})."
            ) from error
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ConfigError(f"Expected an API key a line, got none ({file}).")
        keys += found
    for key in keys:
        if len(key) < MIN_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"Expected API keys of at least {MIN_LENGTH} printable ASCII characters, got one of {len(key)}."
            )
    return tuple(key.encode("ascii") for key in keys)


def offered_key(headers: Headers) -> bytes | None:
    """Return the key that a request offers: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1", "replace")
    plain = headers.get("x-api-key")
    return None if plain is None else plain.strip().encode("latin-1", "replace")


def opens(offered: bytes | None, keys: tuple[bytes, ...]) -> bool:
    """Whether a key is one of the keys; all of them are compared, whichever fits.

    Example:
        >>> opens(b"b", (b"a", b"b")), opens(None, (b"a",)), opens(None, ())
        (True, False, True)
    """
    if not keys:
        return True
    digest = hashlib.sha256(offered or b"").digest()
    # A sum, not `any`: every key is compared, so the time does not tell which one fitted.
    return sum(hmac.compare_digest(digest, hashlib.sha256(key).digest()) for key in keys) > 0
