"""URLs: only listed hosts, only public addresses however they are written, bounded in bytes, time and redirects."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from forgery_det.core.errors import ImageError
from forgery_det.serving.http.addresses import is_public
from forgery_det.serving.http.fetch import Fetcher, parse_target, system_resolver
from forgery_det.serving.http.settings import FetchRules

LISTED = ("*.example.org", "other.test:8443")
OPEN = FetchRules(hosts=("*",))


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
        *("0.0.0.0", "0.1.2.3", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1"),
        *("240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "::127.0.0.1"),
        *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe"),
        *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
        *("2001:0:7f00:1::", "", "localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1"),
    ],
)
def test_addresses_that_must_stay_out_of_reach(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8"])
def test_addresses_of_the_open_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://a.example.org/x",
            "file:///etc/passwd",
            "gopher://a.example.org/",
            "//a.example.org/x",
            "a.example.org",
        ),
        *("data:image/png;base64,AAAA", "https://", "https://example.org/", "https://example.org.evil.test/"),
        *("https://a.example.org@evil.test/", "https://me:pw@a.example.org/", "https://evil.test/?a.example.org"),
        *("https://evil.test#a.example.org", "https://evil.test\\@a.example.org/", "https://a.example.org:22/"),
        *("https://other.test/", "https://other.test:443/", "http://[::1]/", "http://[::ffff:127.0.0.1]/"),
        *("http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://localhost/"),
        *("http://a.example.org:99999/", "http://[/", "https://a.example.org/" + "x" * 3000, "https://./"),
    ],
)
def test_urls_outside_the_rules(url: str) -> None:
    with pytest.raises(ImageError) as refusal:
        parse_target(url, FetchRules(hosts=LISTED))
    assert refusal.value.reason == "url_not_allowed"


def test_urls_inside_the_rules() -> None:
    rules = FetchRules(hosts=LISTED)
    found = parse_target("HTTPS://A.Example.ORG./a b?c=d e#f", rules)
    assert (found.scheme, found.host, found.port, found.path) == ("https", "a.example.org", 443, "/a%20b?c=d%20e")
    assert parse_target("https://other.test:8443", rules).path == "/"
    assert parse_target("http://b.a.example.org:443/", rules).port == 443
    assert parse_target("https://bücher.example.org/", rules).host == "xn--bcher-kva.example.org"


def test_a_line_break_in_a_url_cannot_reach_the_request() -> None:
    found = parse_target("https://a.example.org/x\r\nHost: evil\r\n?y=\r\nz", FetchRules(hosts=LISTED))
    assert not set("\r\n ") & set(found.path)


def refused(url: str, addresses: list[str], rules: FetchRules = OPEN) -> str:
    """Fetch with a resolver that gives these addresses; nothing may be connected to."""

    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    async def main() -> str:
        with pytest.raises(ImageError) as refusal:
            await Fetcher(rules, 1000, resolve=resolve).fetch(url)
        return refusal.value.reason

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "open_connection", lambda *_, **__: pytest.fail("connected"))
        return asyncio.run(main())


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:169.254.169.254"], ["fe80::1%1"], []]
)
def test_every_address_of_the_answer_must_be_public(addresses: list[str]) -> None:
    assert refused("https://a.example.org/", addresses) == "url_not_allowed"


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]"])
def test_odd_spellings_of_loopback_are_checked_as_the_system_resolves_them(host: str) -> None:
    async def main() -> str:
        with pytest.raises(ImageError) as refusal:
            await Fetcher(OPEN, 1000, resolve=system_resolver).fetch(f"http://{host}/")
        return refusal.value.reason

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "open_connection", lambda *_, **__: pytest.fail("connected"))
        assert asyncio.run(main()) in ("url_not_allowed", "fetch_failed")


def test_no_url_is_fetched_by_default() -> None:
    assert refused("https://a.example.org/", ["93.184.215.14"], FetchRules()) == "url_not_allowed"


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def fetched(answers: dict[str, bytes | float], rules: FetchRules | None = None, path: str = "/a") -> bytes | str:
    """Fetch from a server on loopback, which stands for `good.test`; `private.test` is one that must not be asked."""
    asked: list[str] = []
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Host: good.test" in head
        asked.append(head.split()[1].decode())
        answer = answers[asked[-1]]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        else:
            writer.write(answer)
        writer.close()

    async def main() -> bytes | str:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def resolve(host: str, asked_port: int) -> list[str]:
            return {"good.test": ["127.0.0.1"], "private.test": ["127.0.0.1", "10.0.0.1"]}[host]

        chosen = rules or FetchRules(hosts=("good.test", f"good.test:{port}", "private.test"), timeout_s=5)
        fetcher = Fetcher(chosen, 1000, resolve=resolve, is_allowed=lambda address: address == "127.0.0.1")
        async with server:
            # Redirects are relative, so they stay on the port.
            try:
                return await fetcher.fetch(f"http://good.test:{port}{path}")
            except ImageError as error:
                return error.reason
            finally:
                for writer in writers:
                    writer.transport.abort()

    return asyncio.run(main())


def ok(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body


def to(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def test_bodies_of_every_framing() -> None:
    assert fetched({"/a": ok(b"picture", b"Content-Length: 7\r\n")}) == b"picture"
    assert fetched({"/a": ok(b"picture", b"Connection: close\r\n")}) == b"picture"
    assert fetched({"/a": ok(b"3\r\npic\r\n4\r\nture\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n")}) == b"picture"


def test_redirects_are_followed_and_counted() -> None:
    assert fetched({"/a": to("/b"), "/b": to("c"), "/c": ok(b"x", b"Content-Length: 1\r\n")}) == b"x"
    assert fetched({"/a": to("/a")}) == "fetch_failed"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"/a": to("http://private.test/")}, "url_not_allowed"),
        ({"/a": to("http://evil.test/")}, "url_not_allowed"),
        ({"/a": to("http://169.254.169.254/latest/meta-data/")}, "url_not_allowed"),
        ({"/a": to("file:///etc/passwd")}, "url_not_allowed"),
        ({"/a": ok(bytes(1001), b"Content-Length: 1001\r\n")}, "too_many_bytes"),
        ({"/a": ok(bytes(5000))}, "too_many_bytes"),
        ({"/a": ok(b"x", b"Content-Length: 9\r\n")}, "fetch_failed"),
        ({"/a": ok(b"x", b"Content-Encoding: gzip\r\nContent-Length: 1\r\n")}, "fetch_failed"),
        ({"/a": b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"}, "fetch_failed"),
        ({"/a": b"not http at all\r\n\r\n"}, "fetch_failed"),
        ({"/a": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000}, "fetch_failed"),
        ({"/a": b""}, "fetch_failed"),
    ],
)
def test_answers_that_are_refused(answers: dict[str, bytes | float], reason: str) -> None:
    assert fetched(answers) == reason


def test_slow_answers_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = FetchRules

    def impatient(hosts: tuple[str, ...], timeout_s: float) -> FetchRules:
        return original(hosts, timeout_s=0.1)

    monkeypatch.setitem(globals(), "FetchRules", impatient)
    assert fetched({"/a": 5.0}) == "fetch_timeout"


def test_a_host_that_nobody_knows() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    async def main() -> None:
        await Fetcher(OPEN, 1000, resolve=resolve).fetch("https://nowhere.test/")

    with pytest.raises(
        ImageError, match=r"^fetch_failed: Expected a host that the resolver knows, got nowhere\.test\.$"
    ):
        asyncio.run(main())
