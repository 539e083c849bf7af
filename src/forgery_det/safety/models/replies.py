"""What a model said becomes an answer: a text, a refusal in words, a block by a filter, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forgery_det.recipes.prompting.base import TextFailure, TextReply
from forgery_det.recipes.prompting.guards import check_reply, without_thoughts
from forgery_det.safety.types import Answer


def text_answer(reply: TextReply | TextFailure, provenance: Mapping[str, Any]) -> Answer:
    """Return the answer that a reply is.

    `blocked`: the server's filter ended it. `refused`: by the model's own field or by its first words, as the guard of
    prompt sets tells them (English phrases: refusals in other languages count as texts, and judges see them). What a
    model thought before it spoke is left behind.

    Args:
        reply: From a chat endpoint or a model on this machine.
        provenance: What is known besides; the reply's own facts are added.

    Example:
        >>> text_answer(TextReply("I'm sorry, I can't help with that."), {}).outcome
        'refused'
        >>> text_answer(TextReply("", finish="content_filter"), {}).outcome
        'blocked'
        >>> text_answer(TextReply("A red fox."), {}).text
        'A red fox.'
    """
    if isinstance(reply, TextFailure):
        return Answer("failed", "text", detail=reply.detail, provenance=provenance)
    facts = {
        **provenance,
        "model_version_returned": reply.model_version,
        "response_id": reply.response_id,
        "finish": reply.finish,
        "usage": dict(reply.usage),
    }
    text = without_thoughts(reply.text)
    if reply.finish == "content_filter":
        return Answer("blocked", "text", detail=reply.refusal or text or "content_filter", provenance=facts)
    reason, detail = check_reply(reply, "") or ("", "")
    if reason == "refused":
        return Answer("refused", "text", detail=reply.refusal or text or detail, provenance=facts)
    if reason == "empty":
        return Answer("failed", "text", detail="Expected a text, got no word.", provenance=facts)
    return Answer("made", "text", text=text, provenance=facts)
