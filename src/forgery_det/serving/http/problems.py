"""Refusals: the one exception that becomes an HTTP answer other than 200, and its JSON form.

Every refusal has a stable `code` for programs and a sentence for people, in the project's form "Expected X, got Y".
"""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

CODES: dict[str, tuple[int, str]] = {
    "malformed_body": (400, "the body is not what its content type says"),
    "invalid_api_key": (401, "no API key came, or a wrong one"),
    "not_found": (404, "there is no such endpoint"),
    "method_not_allowed": (405, "the endpoint does not know this method"),
    "upload_too_slow": (408, "the body did not arrive in time"),
    "request_too_large": (413, "more bytes than a request may have"),
    "too_many_images": (413, "more images than a request may have"),
    "image_too_large": (413, "every image of the request has more bytes than an image may have"),
    "unsupported_media_type": (415, "neither multipart/form-data nor application/json"),
    "invalid_request": (422, "a field or parameter has a wrong value"),
    "no_image_scored": (422, "no image of the request could be scored; `images` says why"),
    "queue_full": (429, "too many requests or images wait already; see Retry-After"),
    "internal_error": (500, "a defect of the service; the log has the request id"),
    "out_of_buffer": (503, "the bodies held now leave no room for this one; see Retry-After"),
    "shutting_down": (503, "the process is about to end; ask another one"),
    "not_ready": (503, "the model does not answer"),
    "timeout": (504, "the answer was not ready in time"),
}
"""Code -> status and meaning; `docs/serving.md` lists the same."""


class RefusalError(Exception):
    """Ends a request with the status of its code.

    Args:
        code: A key of `CODES`.
        message: A sentence for people.
        retry_after_s: Whole seconds for the `Retry-After` header, None for no header.
        images: Results to show beside the error.

    Example:
        >>> RefusalError("queue_full", "Expected at most 2 requests, got 3.", retry_after_s=1).status
        429
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after_s: int | None = None,
        images: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = CODES[code][0]
        self.message = message
        self.retry_after_s = retry_after_s
        self.images = images

    def response(self, request_id: str) -> JSONResponse:
        """Return the answer."""
        body = {
            "request_id": request_id,
            "error": {"code": self.code, "message": self.message},
            "images": self.images,
        }
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="forgery-det"'
        return JSONResponse(body, self.status, headers)


class ClientGoneError(Exception):
    """The client closed the connection; nobody is there to be answered."""
