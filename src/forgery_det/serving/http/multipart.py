"""`multipart/form-data` into memory, with every bound checked while the bytes arrive.

python-multipart finds the parts; what becomes of them is decided here. The usual form parsers of web frameworks write
files above a size to the disk, which must not happen to other people's pictures, and check sizes afterwards. A file
with too many bytes is dropped while it arrives and stays an error of that image alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.settings import Limits

FIELD = "files"
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it came.

    Args:
        name: What the client calls it, printable and of at most 200 characters; None when it did not say.
        data: Its bytes; empty when there are none to judge (see `error`).
        error: Reason and detail when it cannot be used.
        url: Where it is to be fetched from, None when the bytes are here.
    """

    name: str | None
    data: bytes = b""
    error: tuple[str, str] | None = None
    url: str | None = None


def shown_name(name: str | None) -> str | None:
    r"""Return a client's file name without folders and control characters, cut to 200 characters.

    Example:
        >>> shown_name("C:\\photos\\a\x00b.jpg"), shown_name("../x.png"), shown_name("")
        ('ab.jpg', 'x.png', None)
    """
    if name is None:
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(one for one in last if one.isprintable())[:_MAX_NAME] or None


def too_many_bytes(limits: Limits) -> tuple[str, str]:
    """Return the reason of an image with too many bytes."""
    return "too_many_bytes", f"Expected at most {limits.max_image_bytes} bytes, got more."


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str | None = None
    data: bytearray = field(default_factory=bytearray)
    is_too_large: bool = False


class MultipartReader:
    r"""Collects the files of a form while its bytes come in.

    Args:
        content_type: The request's header, which names the boundary.
        limits: `max_image_bytes` and `max_images`.

    Raises:
        RefusalError: `malformed_body`, `too_many_images` or `invalid_request`, from here and from both methods.

    Example:
        >>> reader = MultipartReader("multipart/form-data; boundary=x", Limits())
        >>> head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        >>> reader.write(head + b"bytes" + b"\r\n--x--\r\n")
        >>> reader.finish()
        [Upload(name='a.png', data=b'bytes', error=None, url=None)]
    """

    def __init__(self, content_type: str, limits: Limits) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise RefusalError("malformed_body", "Expected a boundary in the content type, got none.")
        self._limits = limits
        self._part = _Part()
        self._header = b""
        self._value = b""
        self._uploads: list[Upload] = []
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_end,
                    "on_end": self._on_complete,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from None

    def write(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(error) from None

    def finish(self) -> list[Upload]:
        """Return the files, after the last byte."""
        try:
            self._parser.finalize()
        except FormParserError as error:
            raise _malformed(error) from None
        if not self._is_complete:
            raise RefusalError("malformed_body", "Expected the closing boundary, got the end of the body.")
        return self._uploads

    def close(self) -> None:
        """Let the bytes go: parser and reader hold each other, and only the garbage collector would part them."""
        del self._parser
        self._part, self._uploads = _Part(), []

    def _begin(self) -> None:
        self._part = _Part()

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._part.headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        if options.get(b"name", b"").decode("utf-8", "replace") != FIELD:
            raise RefusalError("invalid_request", f"Expected form fields called `{FIELD}` only, got another one.")
        if part.headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
            raise RefusalError("invalid_request", "Expected the bytes of the file, got another transfer encoding.")
        if len(self._uploads) >= self._limits.max_images:
            raise RefusalError("too_many_images", f"Expected at most {self._limits.max_images} images, got more.")
        name = options.get(b"filename")
        part.name = None if name is None else shown_name(name.decode("utf-8", "replace"))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if len(part.data) + end - start > self._limits.max_image_bytes:
            part.is_too_large = True
            part.data = bytearray()
        if not part.is_too_large:
            part.data += data[start:end]

    def _on_end(self) -> None:
        part = self._part
        error = too_many_bytes(self._limits) if part.is_too_large else None
        self._uploads.append(Upload(part.name, bytes(part.data), error))
        self._part = _Part()

    def _on_complete(self) -> None:
        self._is_complete = True


def _malformed(error: Exception) -> RefusalError:
    # The parser's texts name positions and single bytes, never content.
    return RefusalError("malformed_body", f"Expected multipart/form-data, got a body that breaks it: {error}"[:300])
