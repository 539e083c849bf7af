"""Images by URL: only from hosts that the operator listed, only over public addresses, never more than the limits.

A name is resolved once, every address of the answer is checked, and the connection goes to a checked address: a second
answer of the resolver (DNS rebinding) is never asked for. TLS verifies the certificate for the name. Each redirect is
checked like a new URL. No proxy, cookie or credential of the environment is used. h11 (which uvicorn brings) reads the
answer, so sizes are bounded while it arrives and one deadline holds for all of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import h11

from forgery_det._version import __version__
from forgery_det.core.errors import ImageError
from forgery_det.serving.http.addresses import is_public
from forgery_det.serving.http.settings import FetchRules

Resolver = Callable[[str, int], Awaitable[list[str]]]

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_URL = 2048
_MAX_HEAD_BYTES = 16 * 1024
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that the rules allow: scheme, host as the resolver is asked, port, and path with query."""

    scheme: str
    host: str
    port: int
    path: str


def _not_allowed(detail: str) -> ImageError:
    return ImageError("url_not_allowed", detail)


def _failed(detail: str) -> ImageError:
    return ImageError("fetch_failed", detail)


def parse_target(url: str, rules: FetchRules) -> Target:
    """Split a URL and hold it against the rules.

    Raises:
        ImageError: `url_not_allowed`.

    Example:
        >>> parse_target("https://a.example.org/x y.png?s=1", FetchRules(hosts=("*.example.org",))).path
        '/x%20y.png?s=1'
        >>> parse_target("http://127.0.0.1/", FetchRules(hosts=("*.example.org",)))
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ImageError: url_not_allowed: Expected a host that the operator allows, got 127.0.0.1.
    """
    if not rules.hosts:
        raise _not_allowed("Expected bytes: this service fetches no URLs.")
    if len(url) > _MAX_URL:
        raise _not_allowed(f"Expected a URL of at most {_MAX_URL} characters, got {len(url)}.")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").encode("idna").decode("ascii").lower()
        port = parts.port
    except ValueError:  # UnicodeError is one
        raise _not_allowed("Expected a well-formed URL.") from None
    if parts.scheme not in _PORTS or not host:
        raise _not_allowed("Expected an address that starts with https:// or http://.")
    if parts.username is not None or parts.password is not None:
        raise _not_allowed("Expected a URL without user name and password.")
    if not _is_listed(host, port if port is not None else _PORTS[parts.scheme], rules.hosts):
        raise _not_allowed(f"Expected a host that the operator allows, got {host[:253]}.")
    path = quote(parts.path or "/", safe=_PATH_SAFE)
    query = f"?{quote(parts.query, safe=_PATH_SAFE + '?')}" if parts.query else ""
    return Target(parts.scheme, host, port if port is not None else _PORTS[parts.scheme], path + query)


def _is_listed(host: str, port: int, listed: tuple[str, ...]) -> bool:
    for entry in listed:
        name, colon, wanted = entry.lower().rpartition(":")
        if not colon:
            name, wanted = entry.lower(), ""
        if (port != int(wanted)) if wanted else (port not in _PORTS.values()):
            continue
        if name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:])):
            return True
    return False


async def system_resolver(host: str, port: int) -> list[str]:
    """Ask the system's resolver; every address of the answer, in its order."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # 1 = SOCK_STREAM
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Fetcher:
    """Fetches images within the rules.

    Args:
        rules: Hosts, times and redirects.
        max_bytes: Largest image.
        resolve: Host and port -> addresses.
        is_allowed: Whether an address may be connected to; tests put loopback here.
    """

    def __init__(
        self,
        rules: FetchRules,
        max_bytes: int,
        *,
        resolve: Resolver = system_resolver,
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._rules = rules
        self._max_bytes = max_bytes
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._places = asyncio.Semaphore(rules.max_concurrent)

    async def fetch(self, url: str) -> bytes:
        """Return the body behind a URL.

        Raises:
            ImageError: `url_not_allowed`, `too_many_bytes`, `fetch_timeout` or `fetch_failed`.
        """
        target = parse_target(url, self._rules)
        try:
            async with asyncio.timeout(self._rules.timeout_s), self._places:
                for _ in range(self._rules.max_redirects + 1):
                    answer = await self._get(target)
                    if isinstance(answer, bytes):
                        return answer
                    origin = f"{target.scheme}://{target.host}:{target.port}{target.path}"
                    target = parse_target(urljoin(origin, answer.location), self._rules)
        except TimeoutError:
            raise ImageError("fetch_timeout", f"Expected an image within {self._rules.timeout_s:g} s.") from None
        except (OSError, h11.ProtocolError) as error:
            # The text of the error may hold addresses of our network; its kind is enough.
            raise _failed(f"Expected an answer over HTTP, got {type(error).__name__}.") from error
        raise _failed(f"Expected at most {self._rules.max_redirects} redirects, got more.")

    async def _addresses(self, target: Target) -> list[str]:
        try:
            addresses = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            raise _failed(f"Expected a host that the resolver knows, got {target.host[:253]}.") from None
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise _not_allowed(f"Expected a host with public addresses only, got {target.host[:253]}.")
        return addresses

    async def _get(self, target: Target) -> bytes | _Redirect:
        addresses = await self._addresses(target)
        async with _connection(addresses, target) as (reader, writer):
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
            default_port = target.port == _PORTS[target.scheme]
            headers = [
                ("Host", target.host if default_port else f"{target.host}:{target.port}"),
                ("User-Agent", f"forgery-det/{__version__}"),
                ("Accept", "image/*"),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
            ]
            writer.write(connection.send(h11.Request(method="GET", target=target.path, headers=headers)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            return await self._read(connection, reader)

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> bytes | _Redirect:
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(64 * 1024))
            elif isinstance(event, h11.Response):
                location = self._checked(event)
                if location is not None:
                    return _Redirect(location)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._max_bytes:
                    raise self._too_large()
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise _failed("Expected a whole answer, got a closed connection.")

    def _checked(self, response: h11.Response) -> str | None:
        """Return the location of a redirect, None for an answer whose body may be read."""
        headers = {name.lower(): value for name, value in response.headers}
        if response.status_code in _REDIRECTS and b"location" in headers:
            return headers[b"location"].decode("latin-1")
        if response.status_code != 200:
            raise _failed(f"Expected status 200, got {response.status_code}.")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _failed("Expected bytes without a content encoding.")
        if int(headers.get(b"content-length", b"0")) > self._max_bytes:
            raise self._too_large()
        return None

    def _too_large(self) -> ImageError:
        return ImageError("too_many_bytes", f"Expected at most {self._max_bytes} bytes, got more.")


@dataclass(frozen=True, slots=True)
class _Redirect:
    location: str


@asynccontextmanager
async def _connection(
    addresses: list[str], target: Target
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the first address that answers; the name is only used for TLS."""
    security = ssl.create_default_context() if target.scheme == "https" else None
    name = target.host if security else None
    for last, address in zip((*[False] * (len(addresses) - 1), True), addresses, strict=True):
        try:
            reader, writer = await asyncio.open_connection(address, target.port, ssl=security, server_hostname=name)
            break
        except OSError:
            if last:
                raise
    try:
        yield reader, writer
    finally:
        writer.transport.abort()  # nothing is reused, and a slow peer must not hold us
