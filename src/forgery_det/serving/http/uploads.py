"""The body of a request, from its first byte to a list of images, within the bounds on bytes and time.

A body is counted while it is read, whether or not it announced a length, and refused at the first byte too many. The
time limit holds for the whole body, so a client that sends a byte a second gives its place back.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from forgery_det.serving.http.multipart import MultipartReader, Upload, shown_name, too_many_bytes
from forgery_det.serving.http.problems import ClientGoneError, RefusalError
from forgery_det.serving.http.schema import JsonImage, PredictBody
from forgery_det.serving.http.settings import Limits

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
_JSON_COPIES = 2
"""A JSON body is held twice more while it is read: as text and as decoded bytes."""


async def read_uploads(
    request: Request, limits: Limits, take: Callable[[int], None], executor: Executor
) -> tuple[list[Upload], int]:
    """Read the images of a request.

    Args:
        request: Whose body nobody has read yet.
        limits: Bounds on bytes, images and time.
        take: Reserves room for bytes (see `admission`).
        executor: Where large JSON bodies are parsed.

    Returns:
        At least one upload, and the bytes of the body.

    Raises:
        RefusalError: The body is refused as a whole.
        ClientGoneError: The client left.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON_TYPE, FORM_TYPE):
        raise RefusalError(
            "unsupported_media_type", f"Expected content type {FORM_TYPE} or {JSON_TYPE}, got {kind[:80] or 'none'}."
        )
    try:
        async with asyncio.timeout(limits.upload_timeout_s):
            if kind == FORM_TYPE:
                uploads, n_bytes = await _read_form(request, limits, take)
            else:
                body = await _read_all(request, limits, take)
                take(_JSON_COPIES * len(body))
                loop = asyncio.get_running_loop()
                uploads = await loop.run_in_executor(executor, partial(parse_json, body, limits))
                n_bytes = len(body)
    except TimeoutError:
        raise RefusalError(
            "upload_too_slow", f"Expected the whole body within {limits.upload_timeout_s:g} s."
        ) from None
    except ClientDisconnect:
        raise ClientGoneError from None
    if not uploads:
        raise RefusalError("invalid_request", "Expected at least one image, got none.")
    return uploads, n_bytes


async def _chunks(request: Request, limits: Limits, take: Callable[[int], None]) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > limits.max_request_bytes:
        raise _too_large(limits)
    n_bytes = 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > limits.max_request_bytes:
            raise _too_large(limits)
        take(len(chunk))
        yield chunk


async def _read_form(request: Request, limits: Limits, take: Callable[[int], None]) -> tuple[list[Upload], int]:
    reader = MultipartReader(request.headers["content-type"], limits)
    n_bytes = 0
    try:
        async for chunk in _chunks(request, limits, take):
            n_bytes += len(chunk)
            reader.write(chunk)
        return reader.finish(), n_bytes
    finally:
        reader.close()


async def _read_all(request: Request, limits: Limits, take: Callable[[int], None]) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request, limits, take)])


def parse_json(body: bytes, limits: Limits) -> list[Upload]:
    """Return the images of a JSON body.

    Raises:
        RefusalError: `malformed_body`, `invalid_request` or `too_many_images`.

    Example:
        >>> parse_json(b'{"images": [{"name": "a.png", "base64": "aGk="}]}', Limits())
        [Upload(name='a.png', data=b'hi', error=None, url=None)]
    """
    try:
        parsed = PredictBody.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None
    if len(parsed.images) > limits.max_images:
        raise RefusalError("too_many_images", f"Expected at most {limits.max_images} images, got {len(parsed.images)}.")
    return [_upload(image, limits) for image in parsed.images]


def _upload(image: JsonImage, limits: Limits) -> Upload:
    name = shown_name(image.name)
    if image.base64 is None:
        return Upload(name, url=image.url)
    if len(image.base64) // 4 * 3 > limits.max_image_bytes + 2:
        return Upload(name, error=too_many_bytes(limits))
    try:
        return Upload(name, base64.b64decode(image.base64, validate=True))
    except (binascii.Error, ValueError):
        return Upload(name, error=("bad_base64", "Expected standard base64 with padding, got something else."))


def _invalid(error: ValidationError) -> RefusalError:
    """Say where the body is wrong, without repeating what it holds."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return RefusalError("malformed_body", "Expected JSON, got a body that is not.")
    where = ".".join(str(part)[:40] for part in first["loc"][:6]) or "the body"
    return RefusalError(
        "invalid_request", f"Expected the fields of the schema, got a wrong one at {where}: {first['msg'][:200]}"
    )


def _too_large(limits: Limits) -> RefusalError:
    return RefusalError("request_too_large", f"Expected at most {limits.max_request_bytes} bytes, got more.")
