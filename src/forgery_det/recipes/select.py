"""Select: of all candidates, which enter the manifest, and in which split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forgery_det.core.types import SPLITS
from forgery_det.recipes.dedup import deduplicate
from forgery_det.recipes.recipe import DedupPolicy, SplitPolicy
from forgery_det.recipes.rows import Candidate, Refused, piece_key
from forgery_det.recipes.split import STRADDLES, Assignment, assign_splits


def without_duplicates(candidates: Sequence[Candidate], policy: DedupPolicy) -> tuple[list[Candidate], list[Refused]]:
    """Return the candidates that stay and the copies that go, both in the order of the input."""
    dropped = {gone.index: gone for gone in deduplicate([candidate.row for candidate in candidates], policy)}
    kept = [candidate for index, candidate in enumerate(candidates) if index not in dropped]
    refused = [
        _refused(candidates[index], gone.reason, f"{gone.detail} Image {gone.other_image_id}.")
        for index, gone in sorted(dropped.items())
    ]
    return kept, refused


def with_splits(
    candidates: Sequence[Candidate], policy: SplitPolicy
) -> tuple[list[tuple[Candidate, str]], list[Refused]]:
    """Return the candidates with their splits, and those that would straddle a split.

    A row whose split was fixed by the recipe or its source keeps it. Where fixed rows of one `source_id` disagree, the
    one furthest from training (test, then val) wins, and the other rows of the group go.
    """
    rows = [candidate.row for candidate in candidates]
    fixed: dict[str, str] = {}
    for row in rows:
        if "split" in row:
            fixed[row["source_id"]] = max(fixed.get(row["source_id"], SPLITS[0]), row["split"], key=SPLITS.index)
    placed: list[tuple[Candidate, str]] = []
    refused: list[Refused] = []
    for candidate, assignment in zip(candidates, assign_splits(rows, policy), strict=True):
        assignment = _with_fixed(candidate.row, assignment, fixed)
        if assignment.split is None:
            refused.append(_refused(candidate, assignment.reason, assignment.detail))
        else:
            placed.append((candidate, assignment.split))
    return placed, refused


def _with_fixed(row: Mapping[str, Any], assignment: Assignment, fixed: Mapping[str, str]) -> Assignment:
    if row["source_id"] not in fixed:
        return assignment
    wanted, winner = row.get("split", assignment.split), fixed[row["source_id"]]
    if wanted == winner:
        return Assignment(winner)
    detail = f"Belongs to '{wanted}', but source_id {row['source_id']!r} is fixed in '{winner}'."
    return Assignment(None, STRADDLES, detail)


def _refused(candidate: Candidate, reason: str, detail: str) -> Refused:
    key = piece_key(candidate.key, candidate.box, candidate.crop)
    return Refused(candidate.source, key, reason, detail, candidate.row["image_id"])
