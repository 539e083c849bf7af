"""Everything that an operator may set, as frozen dataclasses with their bounds checked at construction."""

from __future__ import annotations

from dataclasses import dataclass, field

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import DecodeLimits

MIB = 2**20


@dataclass(frozen=True)  # no slots: jsonargparse reads defaults from `__dict__`
class Limits:
    """Bounds of one service process; `docs/serving.md` says which status answers each.

    Args:
        max_request_bytes: Bytes of one request body, counted while it is read.
        max_image_bytes: Bytes of one image; a larger one is an error of that image alone.
        max_images: Images of one request.
        max_pixels: Width times height of one image, checked on its header.
        max_requests: Requests in flight, uploads included.
        max_queued_images: Images in flight that wait for decoding or the model, or are in it.
        max_buffered_bytes: Bytes of all bodies held at the same time.
        max_decoded_bytes: Bytes of decoded images held at the same time; decoding waits for room.
        max_connections: Open connections.
        header_timeout_s: Seconds until a connection has sent a whole request head.
        upload_timeout_s: Seconds until a request body is there.
        request_timeout_s: Seconds from the end of the upload to the answer.
        shutdown_timeout_s: Seconds that requests in flight get after SIGTERM.
        decode_threads: Images decoded at the same time.
        batch_size: Images of one forward pass; larger was not faster on processors (docs/serving.md).
        batch_wait_s: Longest wait for a batch to fill while other images are being decoded.

    Example:
        >>> Limits(max_images=0)
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Expected `max_images` above 0, got 0.
    """

    max_request_bytes: int = 64 * MIB
    max_image_bytes: int = 32 * MIB
    max_images: int = 16
    max_pixels: int = 50_000_000
    max_requests: int = 128
    max_queued_images: int = 256
    max_buffered_bytes: int = 512 * MIB
    max_decoded_bytes: int = 1024 * MIB
    max_connections: int = 512
    header_timeout_s: float = 10.0
    upload_timeout_s: float = 30.0
    request_timeout_s: float = 30.0
    shutdown_timeout_s: float = 35.0
    decode_threads: int = 2
    batch_size: int = 4
    batch_wait_s: float = 0.005

    def __post_init__(self) -> None:
        """Check the bounds."""
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name != "batch_wait_s"):
                raise ConfigError(f"Expected `{name}` above 0, got {value}.")

    def decode_limits(self, bundle_max_pixels: int | None) -> DecodeLimits:
        """Return the decoder's limits: the tighter of the service's and the bundle's."""
        pixels = self.max_pixels if bundle_max_pixels is None else min(self.max_pixels, bundle_max_pixels)
        return DecodeLimits(max_bytes=self.max_image_bytes, max_pixels=pixels)


@dataclass(frozen=True)  # no slots, as above
class FetchRules:
    """Which URLs may be fetched for a client; none by default.

    Args:
        hosts: Names that may be asked: `images.example.org`, `*.example.org` (names below it), `host:8443` (another
            port than 80 and 443), or `*` (any public host). Empty: URLs are refused.
        timeout_s: Seconds for one image, redirects included.
        max_redirects: Redirects followed; each is checked anew.
        max_concurrent: Fetches at the same time.
    """

    hosts: tuple[str, ...] = ()
    timeout_s: float = 10.0
    max_redirects: int = 3
    max_concurrent: int = 8

    def __post_init__(self) -> None:
        """Check the host patterns, so that a typing mistake is told at the start and not by a refused request."""
        for host in self.hosts:
            if not host or "/" in host or "@" in host or "*" in host.removeprefix("*."[: 2 if host != "*" else 1]):
                raise ConfigError(
                    f"Expected a host such as `images.example.org`, `*.example.org` or `*`, got {host!r}."
                )


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `create_app` is given.

    Args:
        limits: Bounds on requests, memory and time.
        fetch: Which URLs may be fetched.
        api_keys: Keys that open `/v1` and `/metrics`; empty: no key is asked for.
        log_names: Write file names and fetched hosts into the log; off, as names may tell about people.
    """

    limits: Limits = field(default_factory=Limits)
    fetch: FetchRules = field(default_factory=FetchRules)
    api_keys: tuple[bytes, ...] = field(default=(), repr=False)
    log_names: bool = False
