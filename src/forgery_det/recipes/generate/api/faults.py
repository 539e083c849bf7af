"""What can go wrong between a request and its image, in one exception that says what may be done about it.

Three questions decide: may the same request be sent again (`retry`), was the answer perhaps paid for although it never
came (`paid`), and must the whole run stop because no other job can fare better (`fatal`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from forgery_det.core.errors import ForgeryDetError

MAX_DETAIL_CHARACTERS = 500
"""Longest piece of a server's text that is repeated in an error or an outcome."""

_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_GATEWAY_TIMEOUTS = frozenset({408, 504, 524})
"""The service behind the gateway may have finished, and counted, what the gateway did not wait for."""

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "AccountOverdue"})
_MODEL_CODES = frozenset({"model_not_found", "ModelNotOpen", "InvalidEndpointOrModel.NotFound"})
_KEY_CODES = frozenset({"invalid_api_key", "API_KEY_INVALID", "AuthenticationError", "UNAUTHENTICATED"})
_FATAL = {401: "unauthorised", 402: "quota", 403: "forbidden", 404: "not_found"}
_RESET = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ApiError(ForgeryDetError):
    """A request that brought no image.

    Args:
        reason: Stable word: `rate_limited`, `server_error`, `timeout`, `connection`, `truncated`, `oversized`,
            `wrong_content_type`, `invalid_body`, `not_an_image`, `download`, `rejected`, `unauthorised`, `forbidden`,
            `not_found`, `quota`.
        detail: A sentence for people.
        retry: The same request may succeed later.
        paid: The answer may have been paid for.
        wait_s: How long the server asks to wait; None where it says nothing.
        code: The API's own word for the error.
    """

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        retry: bool = False,
        paid: bool = False,
        wait_s: float | None = None,
        code: str = "",
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry = retry
        self.paid = paid
        self.wait_s = wait_s
        self.code = code

    def without(self, key: str) -> ApiError:
        """Return the same fault without a key that the server may have repeated."""
        detail, code = (text.replace(key, "<key>") if key else text for text in (self.detail, self.code))
        return ApiError(self.reason, detail, retry=self.retry, paid=self.paid, wait_s=self.wait_s, code=code)

    @property
    def is_fatal(self) -> bool:
        """Tell whether no other job of the run can succeed either."""
        return self.reason in _FATAL.values()


def lost_answer(reason: str, detail: str, *, retry: bool = True) -> ApiError:
    """Return the fault of an answer that came, was paid for, and cannot be used."""
    return ApiError(reason, detail, retry=retry, paid=True)


def fault_of_status(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> ApiError:
    """Return what an answer outside of 2xx means.

    Args:
        status: HTTP status.
        headers: Response headers, names in lower case.
        body: The response's body.
        now: For `Retry-After` as a date.

    Example:
        >>> fault = fault_of_status(429, {"retry-after": "7"}, b"", datetime.now(UTC))
        >>> fault.reason, fault.retry, fault.wait_s
        ('rate_limited', True, 7.0)
        >>> fault_of_status(401, {}, b'{"error": {"message": "no such key"}}', datetime.now(UTC)).is_fatal
        True
    """
    message, code, wait_s = read_error(body)
    detail = f"{status} {message}".strip()[:MAX_DETAIL_CHARACTERS]
    if code in _QUOTA_CODES:
        return ApiError("quota", detail, code=code)
    if status in _FATAL or code in _KEY_CODES | _MODEL_CODES:
        named = "unauthorised" if code in _KEY_CODES else "not_found" if code in _MODEL_CODES else _FATAL[status]
        return ApiError(named, detail, code=code)
    asked = retry_after_s(headers, now)
    wait = asked if asked is not None else wait_s
    if status == 429:
        return ApiError("rate_limited", detail, retry=True, wait_s=wait, code=code)
    paid = status in _GATEWAY_TIMEOUTS
    if status >= 500 or status in _RETRIED_STATUSES:
        reason = "timeout" if paid else "server_error"
        return ApiError(reason, detail, retry=True, paid=paid, wait_s=wait, code=code)
    return ApiError("rejected", detail, code=code)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date.

    Returns:
        Seconds, 0 for a date that has passed, None where nothing usable is said.

    Example:
        >>> now = datetime(2026, 10, 21, 7, 27, 50, tzinfo=UTC)
        >>> retry_after_s({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, now)
        10.0
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def used_up_s(headers: Mapping[str, str]) -> float:
    """Return how long the account's limits of a successful answer are used up: OpenAI's `x-ratelimit-*` headers.

    Example:
        >>> used_up_s({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"})
        90.0
        >>> used_up_s({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1m30s"})
        0.0
    """
    waits = [0.0]
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
            waits.append(duration_s(headers.get(f"x-ratelimit-reset-{what}", "")))
    return max(waits)


def duration_s(text: str) -> float:
    """Return the seconds of `6m0s`, `120ms` or `37s`; 0 for anything else.

    Example:
        >>> duration_s("6m0s"), duration_s("120ms"), duration_s("soon")
        (360.0, 0.12, 0.0)
    """
    return sum((float(number) * _SECONDS[unit] for number, unit in _RESET.findall(text)), 0.0)


def read_error(body: bytes) -> tuple[str, str, float | None]:
    """Return message, code and wait of an error body, whichever of the known shapes it has.

    `{"error": {"message", "code", "details"}}` is OpenAI's, Ark's and Google's, `{"detail": ...}` that of vLLM-Omni.

    Example:
        >>> read_error(b'{"error": {"message": "no", "code": "moderation_blocked"}}')
        ('no', 'moderation_blocked', None)
        >>> read_error(b"<html>")
        ('<html>', '', None)
    """
    text = body[: 4 * MAX_DETAIL_CHARACTERS].decode("utf-8", "replace")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return " ".join(text.split()), "", None
    if isinstance(content, list) and content:
        content = content[0]
    error = content.get("error", content) if isinstance(content, dict) else content
    if not isinstance(error, dict):
        return str(error), "", None
    message = error.get("message") or error.get("detail") or text
    code, wait_s = _google_details(error.get("details"))
    own = error.get("code")
    return str(message), code or (own if isinstance(own, str) else str(error.get("status") or "")), wait_s


def _google_details(details: Any) -> tuple[str, float | None]:
    """Return the reason of an `ErrorInfo` and the delay of a `RetryInfo` (google.rpc, error_details.proto)."""
    reason, wait_s = "", None
    for entry in details if isinstance(details, list) else []:
        kind = str(entry.get("@type", "")) if isinstance(entry, dict) else ""
        if kind.endswith("ErrorInfo"):
            reason = str(entry.get("reason", ""))
        if kind.endswith("RetryInfo"):
            wait_s = duration_s(str(entry.get("retryDelay", "")))
    return reason, wait_s
