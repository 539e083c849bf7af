"""Split: a fixed place for every image, so that adding data moves nothing between train, val and test.

    u = sha256(salt, source_id), 53 bits of it, as a number in [0, 1)
    train if u < f_train, else val if u < f_train + f_val, else test

Rules come first (by generator, paradigm, label, release date of the generator; the first that matches wins), the hash
decides the rest. A row's natural split depends on that row alone.

A `source_id` must not straddle splits. If the members of a group have different natural splits, one split wins: that of
the earliest rule that matches a member. Members whose natural split is another one go to the quarantine as
`straddles_split`; they are not pulled over, because a rule such as "this generator is held out" would then be broken
silently. So a new row can send an old one to the quarantine, but never to another split.

Images that share a prompt are not grouped here: `prompt_id` pairs are compared within one split by the protocols.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isclose
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import SPLITS
from forgery_det.recipes.recipe import SplitPolicy, SplitRule

STRADDLES = "straddles_split"
"""The stable word of the quarantine."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one row goes: a split, or None with the reason and a sentence for people."""

    split: str | None
    reason: str = ""
    detail: str = ""


def assign_splits(rows: Sequence[Row], policy: SplitPolicy) -> tuple[Assignment, ...]:
    """Return one assignment a row, in the order of the rows; independent of that order.

    Args:
        rows: Manifest rows; read are `source_id`, `generator`, `paradigm`, `label` and `release_date`.
        policy: Fractions of the hashed rest, salt, rules.

    Raises:
        ConfigError: A split is unknown, a fraction is outside [0, 1], or they do not sum to 1.

    Example:
        >>> policy = SplitPolicy({"train": 0.8, "val": 0.2}, "v1", (SplitRule("test", paradigm=("mllm",)),))
        >>> photo = {"source_id": "a", "generator": "camera", "paradigm": "camera", "label": 0, "release_date": None}
        >>> fake = photo | {"source_id": "b", "generator": "janus-pro-7b", "paradigm": "mllm", "label": 1}
        >>> [a.split for a in assign_splits([photo, fake], policy)]
        ['train', 'test']
    """
    check_split_policy(policy)
    natural = [_natural(row, policy) for row in rows]
    winners: dict[str, tuple[int, str]] = {}
    for row, place in zip(rows, natural, strict=True):
        winners[row["source_id"]] = min(winners.get(row["source_id"], place), place)
    assignments = []
    for row, (_, split) in zip(rows, natural, strict=True):
        winner = winners[row["source_id"]][1]
        if split == winner:
            assignments.append(Assignment(split))
        else:
            detail = (
                f"Belongs to '{split}', but source_id {row['source_id']!r} is placed in '{winner}' by a rule that "
                "matches another image of it."
            )
            assignments.append(Assignment(None, STRADDLES, detail))
    return tuple(assignments)


def check_split_policy(policy: SplitPolicy) -> None:
    """Check names and fractions.

    Raises:
        ConfigError: A split is unknown, a fraction is outside [0, 1], or they do not sum to 1.
    """
    for name in (*policy.fractions, *(rule.split for rule in policy.rules)):
        if name not in SPLITS:
            raise ConfigError(f"Unknown split {name!r} (split of the recipe): {did_you_mean(name, SPLITS)}")
    for name, fraction in policy.fractions.items():
        if not 0.0 <= fraction <= 1.0:
            raise ConfigError(f"Expected the fraction of '{name}' in [0, 1], got {fraction} (split of the recipe).")
    total = sum(policy.fractions.values())
    if not isclose(total, 1.0, abs_tol=1e-9):
        listed = " + ".join(f"{name} {fraction:g}" for name, fraction in policy.fractions.items()) or "none"
        raise ConfigError(f"Expected fractions that sum to 1, got {listed} = {total:g} (split of the recipe).")


def unit_hash(salt: str, source_id: str) -> float:
    """Return the place of a source in [0, 1): 53 bits of sha256 over salt and `source_id`, each with its length.

    Example:
        >>> unit_hash("v1", "a") == unit_hash("v1", "a") != unit_hash("v2", "a")
        True
    """
    # Lengths in front keep ("ab", "c") and ("a", "bc") apart.
    text = f"{len(salt)}:{salt}{len(source_id)}:{source_id}"
    return (int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 11) / 2**53


def hashed_split(source_id: str, policy: SplitPolicy) -> str:
    """Return the split that the hash alone gives; a split with fraction 0 is never the answer.

    Example:
        >>> hashed_split("a", SplitPolicy({"test": 1.0, "train": 0.0}, "v1", ()))
        'test'
    """
    place, edge = unit_hash(policy.salt, source_id), 0.0
    # SPLITS, not the mapping, gives the order: writing the fractions in another order moves nothing.
    used = [name for name in SPLITS if policy.fractions.get(name, 0.0) > 0.0]
    for name in used:
        edge += policy.fractions[name]
        if place < edge:
            return name
    return used[-1]


def rule_matches(rule: SplitRule, row: Row) -> bool:
    """Return whether all conditions of the rule hold; a condition that is not given holds for every row.

    Dates: `released_from <= release_date < released_before`. A row without `release_date` (a camera) matches no rule
    with a date.
    """
    released: date | None = row.get("release_date")
    if rule.released_from is not None and (released is None or released < rule.released_from):
        return False
    if rule.released_before is not None and (released is None or released >= rule.released_before):
        return False
    return (
        (not rule.generator or row["generator"] in rule.generator)
        and (not rule.paradigm or row["paradigm"] in rule.paradigm)
        and (rule.label is None or row["label"] == rule.label)
    )


def _natural(row: Row, policy: SplitPolicy) -> tuple[int, str]:
    """Return the position of the deciding rule (or, after all rules, the hash) and the split."""
    for position, rule in enumerate(policy.rules):
        if rule_matches(rule, row):
            return position, rule.split
    return len(policy.rules), hashed_split(row["source_id"], policy)
