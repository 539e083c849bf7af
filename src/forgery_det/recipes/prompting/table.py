"""The table `prompts.parquet`: every text of every set, used or refused, with all that it was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.recipes.prompt_sets import PromptSet
from forgery_det.recipes.prompting.base import PromptRow, TextReply, TextRequest
from forgery_det.recipes.prompting.guards import word_count
from forgery_det.recipes.prompting.writer import Writer

_TEXT, _INT = pl.String(), pl.Int64()
PROMPTS_SCHEMA: dict[str, pl.DataType] = {
    "prompt_set": _TEXT,
    "prompt_id": _TEXT,
    "content_id": _TEXT,
    "source_id": _TEXT,
    "prompt_level": _TEXT,
    "prompt": _TEXT,
    "words": _INT,
    "clip_tokens": _INT,
    "place": _TEXT,
    "parent": _TEXT,
    "image_sha256": _TEXT,
    "kind": _TEXT,
    "model": _TEXT,
    "model_version": _TEXT,
    "parameters": _TEXT,
    "instruction_id": _TEXT,
    "instruction": _TEXT,
    "seed": _INT,
    "request_id": _TEXT,
    "response_id": _TEXT,
    "finish": _TEXT,
    "answer": _TEXT,
    "reason": _TEXT,
    "detail": _TEXT,
}


@dataclass(frozen=True, slots=True)
class Text:
    """A text of a set on its way: what it says, where it comes from, and why it cannot be used.

    Args:
        row: The row of the source.
        level: Its level.
        text: The text; empty while there is none.
        parent: The text that it expands, None on the first level.
        prompt_id: Id of the idea.
        content_id: Of the idea.
        source_id: Of the idea.
        writer: Who wrote it; None where the source gives it.
        request: What the writer was asked.
        reply: What the writer answered; None where the request failed.
        refusal: Reason and detail.
    """

    row: PromptRow
    level: str
    text: str = ""
    parent: str | None = None
    prompt_id: str = ""
    content_id: str = ""
    source_id: str = ""
    writer: Writer | None = None
    request: TextRequest | None = None
    reply: TextReply | None = None
    refusal: tuple[str, str] | None = None


def record(prompt_set: str, text: Text, clip_tokens: int | None) -> dict[str, Any]:
    """Return the row of a text."""
    reason, detail = text.refusal or (None, None)
    return {
        "prompt_set": prompt_set,
        "prompt_id": text.prompt_id,
        "content_id": text.content_id,
        "source_id": text.source_id,
        "prompt_level": text.level,
        "prompt": text.text or None,
        "words": word_count(text.text) if text.text else None,
        "clip_tokens": clip_tokens,
        "place": text.row.place,
        "parent": text.parent,
        **_provenance(text),
        "reason": reason,
        "detail": detail,
    }


def _provenance(text: Text) -> dict[str, Any]:
    writer, request, reply = text.writer, text.request, text.reply
    if writer is None or request is None:
        return {"kind": "given"}
    return {
        "image_sha256": None if request.image is None else request.image.sha256,
        "kind": writer.spec.kind,
        "model": writer.identity.get("model"),
        "model_version": reply.model_version if reply else None,
        "parameters": canonical_json(writer.identity),
        "instruction_id": sha256_bytes(request.instruction.encode())[:16],
        "instruction": request.instruction,
        "seed": request.seed,
        "request_id": writer.key(request),
        "response_id": reply.response_id if reply else None,
        "finish": reply.finish if reply else None,
        "answer": reply.text if reply else None,
    }


def prompts_frame(sets: Iterable[PromptSet]) -> pl.DataFrame:
    """Return the table of all sets of a dataset, in the order of the sets' names.

    Example:
        >>> prompts_frame([]).height
        0
    """
    records = [one for prompt_set in sorted(sets, key=lambda one: one.name) for one in prompt_set.records]
    return pl.DataFrame(records, schema=PROMPTS_SCHEMA)
