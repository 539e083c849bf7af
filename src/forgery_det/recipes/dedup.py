"""De-duplication: of several copies of an image one stays, and it is always the same one.

Two stages. Exact: equal sha256. Perceptual: hashes within `phash_distance` bits (see `phash`; degenerate hashes are
left out). The answer depends on the set of rows only, not on their order:

- Kept is the first in this order: more pixels, then the smaller `image_id`, then the smaller `source`, `source_id`,
  `generator`, `content_id`, `prompt_id`. Rows are visited in it, and a row goes if it is near a row that stays; so a
  chain of ever slightly different images is thinned out, not wiped out.
- Copies across the classes (a real image that equals a generated one) all go, with a reason of their own: one of the
  two labels is wrong, and nothing here can tell which.
- On purpose alike are images with the same `content_id` and different `generator` (a photograph and its
  reconstruction): a perceptual match between them is no duplicate. Equal bytes always are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forgery_det.recipes.phash import degenerate, near_duplicates, parse_hashes
from forgery_det.recipes.recipe import DedupPolicy

EXACT, NEAR, ACROSS_CLASSES = "duplicate_exact", "duplicate_near", "duplicate_across_classes"
"""The stable words of the quarantine."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that goes.

    Args:
        index: Its position in the rows that were given.
        reason: `duplicate_exact`, `duplicate_near` or `duplicate_across_classes`.
        other_image_id: The image it is a copy of: one that stays, or, across the classes, one that goes with it.
        detail: A sentence for people.
    """

    index: int
    reason: str
    other_image_id: str
    detail: str


def deduplicate(rows: Sequence[Row], policy: DedupPolicy) -> tuple[Dropped, ...]:
    """Return the rows that go, by position.

    Args:
        rows: Manifest rows; read are `image_id`, `label`, `phash`, `width_px`, `height_px`, and for the order and the
            exemption `source`, `source_id`, `generator`, `content_id`, `prompt_id`. A row without `phash` takes part in
            the exact stage only.
        policy: Whether equal bytes go, and the distance (None: no perceptual stage).

    Raises:
        ConfigError: The distance is out of range or a hash is malformed.

    Example:
        >>> row = {"image_id": "a" * 64, "label": 0, "width_px": 8, "height_px": 8, "source_id": "s1"}
        >>> [(d.index, d.reason) for d in deduplicate([row | {"source_id": "s2"}, row], DedupPolicy())]
        [(0, 'duplicate_exact')]
    """
    visit = sorted(range(len(rows)), key=lambda index: _preference(rows[index]))
    dropped: dict[int, Dropped] = {}
    if policy.exact:
        dropped |= _exact(rows, visit)
    if policy.phash_distance is not None:
        staying = [index for index in visit if index not in dropped and rows[index].get("phash") is not None]
        dropped |= _perceptual(rows, staying, policy.phash_distance)
    return tuple(dropped[index] for index in sorted(dropped))


def _preference(row: Row) -> tuple[Any, ...]:
    pixels = (row.get("width_px") or 0) * (row.get("height_px") or 0)
    names = ("source", "source_id", "generator", "content_id", "prompt_id")
    return (-pixels, row["image_id"], *(str(row.get(name) or "") for name in names), row["label"])


def _exact(rows: Sequence[Row], visit: Iterable[int]) -> dict[int, Dropped]:
    copies: dict[str, list[int]] = defaultdict(list)
    for index in visit:
        copies[rows[index]["image_id"]].append(index)
    dropped: dict[int, Dropped] = {}
    for image_id, indices in copies.items():
        if len({rows[index]["label"] for index in indices}) > 1:
            detail = f"The same bytes are listed as real and as generated ({_origins(rows, indices)})."
            dropped |= {index: Dropped(index, ACROSS_CLASSES, image_id, detail) for index in indices}
        else:
            detail = f"The same bytes as an image of {_origins(rows, indices[:1])}."
            dropped |= {index: Dropped(index, EXACT, image_id, detail) for index in indices[1:]}
    return dropped


def _origins(rows: Sequence[Row], indices: Sequence[int]) -> str:
    return ", ".join(f"{rows[i].get('source', 'unknown source')}:{rows[i].get('source_id', '?')}" for i in indices[:3])


def _perceptual(rows: Sequence[Row], visit: Sequence[int], distance: int) -> dict[int, Dropped]:
    neighbours = _hash_neighbours([rows[index]["phash"] for index in visit], distance)
    visit = [index for index in visit if rows[index]["phash"] in neighbours]
    dropped = _across_classes(rows, visit, neighbours)
    kept: dict[str, list[int]] = defaultdict(list)
    for index in visit:
        if index in dropped:
            continue
        row = rows[index]
        for name in neighbours[row["phash"]]:
            twin = next((k for k in kept[name] if not _on_purpose(row, rows[k])), None)
            if twin is not None:
                detail = f"Perceptual hash within {distance} bits of an image of {_origins(rows, [twin])}."
                dropped[index] = Dropped(index, NEAR, rows[twin]["image_id"], detail)
                break
        else:
            kept[row["phash"]].append(index)
    return dropped


def _hash_neighbours(phashes: Sequence[str], distance: int) -> dict[str, list[str]]:
    """Return hash -> the hashes within the distance, itself first; degenerate hashes are absent."""
    names = sorted(set(phashes))
    usable = np.flatnonzero(~degenerate(parse_hashes(names)))
    names = [names[index] for index in usable]
    neighbours = {name: [name] for name in names}
    for a, b in near_duplicates(names, distance).tolist():
        neighbours[names[a]].append(names[b])
        neighbours[names[b]].append(names[a])
    return neighbours


def _on_purpose(row: Row, other: Row) -> bool:
    content = row.get("content_id")
    return content is not None and content == other.get("content_id") and row["generator"] != other["generator"]


def _across_classes(
    rows: Sequence[Row], visit: Sequence[int], neighbours: Mapping[str, list[str]]
) -> dict[int, Dropped]:
    """Drop each row with a look-alike of the other class; counting by content keeps large groups of copies linear."""
    bearers: dict[tuple[str, int], list[int]] = defaultdict(list)
    same_content: Counter[tuple[str, int, Any]] = Counter()
    for index in visit:
        row = rows[index]
        bearers[row["phash"], row["label"]].append(index)
        same_content[row["phash"], row["label"], row.get("content_id")] += 1
    dropped = {}
    for index in visit:
        row, other_label = rows[index], 1 - rows[index]["label"]
        content = row.get("content_id")
        for name in neighbours[row["phash"]]:
            suspects = bearers.get((name, other_label), [])
            exempt = same_content[name, other_label, content] if content is not None else 0
            if len(suspects) > exempt:
                other = next(k for k in suspects if content is None or rows[k].get("content_id") != content)
                detail = f"Looks like an image of the other class ({_origins(rows, [index, other])})."
                dropped[index] = Dropped(index, ACROSS_CLASSES, rows[other]["image_id"], detail)
                break
    return dropped
