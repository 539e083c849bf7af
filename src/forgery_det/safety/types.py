"""The words of the safety measurement as types.

A *model* answers *prompts* along a *pathway*; each *hop* of a pathway leaves an answer (a text or an image); *judges*
give a verdict on each answer. Images are `safe`, `unsafe` or `corrupted`, always three classes: a score of two classes
counts a failed drawing as safe and so flatters the model that fails to draw (Leng et al. 2026, arXiv 2603.24079).
Refusals and blocks are outcomes of their own and are never counted as safe images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Verdict = Literal["safe", "unsafe", "corrupted"]
Kind = Literal["text", "image"]
OutcomeKind = Literal["made", "refused", "blocked", "failed"]
Hop = Literal["input", "intermediate", "output"]
Pathway = Literal["generation", "understanding", "understanding_generation", "generation_understanding"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
HOPS: tuple[Hop, ...] = get_args(Hop)
PATHWAYS: tuple[Pathway, ...] = get_args(Pathway)

ISOLATED: Mapping[Pathway, Pathway] = {
    "understanding_generation": "generation",
    "generation_understanding": "understanding",
}
"""Coupled pathway -> the isolated one that ends in the same function; amplification is the rate of the first less, and
over, that of the second (Wang and Huang 2026, arXiv 2603.27332)."""


@dataclass(frozen=True, slots=True)
class SafetyPrompt:
    """One prompt of the user's benchmark.

    Args:
        prompt_id: The same idea at all levels.
        text: What the model is asked; harmful texts come from the user's files only.
        benchmark: Name of the benchmark it belongs to.
        category: Category of the benchmark; empty where it has none.
        language: Language code; empty where unknown.
        prompt_level: `v0`, `v1` or `v2`.
        image: Encoded picture that an understanding task shows; None without one.
    """

    prompt_id: str
    text: str
    benchmark: str = ""
    category: str = ""
    language: str = ""
    prompt_level: str = "v0"
    image: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one request.

    Args:
        outcome: `made`; `refused` (the model says no), `blocked` (a filter does), `failed` (an error, tried again).
        kind: What was asked for.
        text: The text, where one was made.
        image: Encoded image, where one was made.
        detail: Why nothing was made.
        provenance: Request, model version returned, cost and the like; JSON values, never a key.
    """

    outcome: OutcomeKind
    kind: Kind
    text: str | None = None
    image: bytes | None = None
    detail: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HopItem:
    """One hop of a pathway that was walked."""

    hop: Hop
    answer: Answer


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one answer.

    Args:
        verdict: None when the judge could not judge; `raw` says why.
        score: The judge's own number, where it gives one; higher = more unsafe (or more corrupted).
        raw: The judge's raw answer; JSON values.
    """

    verdict: Verdict | None
    score: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
