"""What comes back for a job, and what is written down about it: never a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forgery_det.recipes.generate.job import Outcome, OutcomeKind


@dataclass(frozen=True, slots=True)
class Answer:
    """What an API said to one job.

    Args:
        kind: `image`, `refused` or `blocked`.
        data: The file as received, for an image.
        detail: The API's words, for the others.
        request: What was asked, as JSON values, files as their sha256.
        tokens: Counted by the API: kind of token -> count.
        facts: Response id, model version that answered, revised prompt, usage: JSON values.
        headers: Response headers, for rate limits.
    """

    kind: OutcomeKind
    data: bytes | None = None
    detail: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """What one job went through in this run."""

    attempts: int = 0
    lost: int = 0
    limited: int = 0
    waited_s: float = 0.0
    usd: float = 0.0
    lost_usd: float = 0.0


def spending(tally: Tally) -> dict[str, Any]:
    """Return what a job cost in this run, as JSON values."""
    return {
        "cost_usd": round(tally.usd, 6),
        "lost_usd": round(tally.lost_usd, 6),
        "attempts": tally.attempts,
        "lost_answers": tally.lost,
    }


def timed(outcome: Outcome, seconds: float) -> Outcome:
    """Return the outcome with its duration written down."""
    facts = {**outcome.provenance, "duration_s": round(seconds, 3)}
    return Outcome(outcome.kind, outcome.data, outcome.detail, facts)


def times(count: int) -> str:
    """Return a count of requests in words."""
    return "asked once" if count == 1 else f"asked {count} times"


def scrub(value: Any, key: str) -> Any:
    """Return a JSON value without the key: a server may repeat what it was sent.

    Example:
        >>> scrub({"message": "wrong key sk-1234 given"}, "sk-1234")
        {'message': 'wrong key <key> given'}
    """
    if not key:
        return value
    if isinstance(value, str):
        return value.replace(key, "<key>")
    if isinstance(value, Mapping):
        return {scrub(name, key): scrub(item, key) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item, key) for item in value]
    return value
