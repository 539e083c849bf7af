"""Significance groups as letters: two detectors that share a letter are not shown to differ.

The result of all pairwise tests is a list of pairs that differ. A compact letter display writes it beside the names: a
letter is a set of detectors without a differing pair. Insert and absorb (Piepho 2004):

    start with one set that holds everybody
    for each differing pair: replace every set that holds both by the set without the one and the set without the other,
    then drop each set that lies inside another

What is left are all maximal sets without a differing pair, so a pair shares a letter exactly if it does not differ.
"Not shown to differ" is not "equal": with few images everybody shares a letter.
"""

from __future__ import annotations

import string
from collections.abc import Iterable

from forgery_det.metrics.errors import MetricError

_ALPHABET = string.ascii_lowercase + string.ascii_uppercase


def compact_letters(n_items: int, different: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """Return the letters of each item; the first item, which is the best in a sorted table, has `a`.

    Args:
        n_items: Number of items, in the order of the table.
        different: Pairs of positions that differ; order within a pair and repetitions do not matter.

    Raises:
        MetricError: A pair names a position outside the table, or one position twice.

    Example:
        >>> compact_letters(3, [(0, 2)])
        ('a', 'ab', 'b')
        >>> compact_letters(2, [])
        ('a', 'a')
    """
    sets = [frozenset(range(n_items))]
    for first, second in sorted({_checked(pair, n_items) for pair in different}):
        split = [
            part for one in sets for part in ((one - {first}, one - {second}) if {first, second} <= one else (one,))
        ]
        sets = _absorbed(split)
    sets.sort(key=sorted)
    return tuple("".join(_letter(rank) for rank, one in enumerate(sets) if item in one) for item in range(n_items))


def _checked(pair: tuple[int, int], n_items: int) -> tuple[int, int]:
    first, second = sorted(pair)
    if not 0 <= first < second < n_items:
        raise MetricError(f"Expected pairs of two positions in [0, {n_items - 1}], got {pair}.")
    return first, second


def _absorbed(sets: list[frozenset[int]]) -> list[frozenset[int]]:
    distinct = list(dict.fromkeys(sets))
    return [one for one in distinct if not any(one < other for other in distinct)]


def _letter(rank: int) -> str:
    return _ALPHABET[rank] if rank < len(_ALPHABET) else f"({rank + 1})"
