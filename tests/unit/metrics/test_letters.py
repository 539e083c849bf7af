from __future__ import annotations

import itertools

import numpy as np
import pytest

from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.letters import compact_letters


@pytest.mark.parametrize(
    ("n_items", "different", "expected"),
    [
        (0, [], ()),
        (1, [], ("a",)),
        (3, [], ("a", "a", "a")),
        (2, [(1, 0)], ("a", "b")),
        (3, [(0, 1), (0, 2), (1, 2)], ("a", "b", "c")),
        # the best differs from both others, which do not differ
        (3, [(0, 1), (0, 2)], ("a", "b", "b")),
        # a chain: only the ends differ
        (4, [(0, 2), (0, 3), (1, 3)], ("a", "ab", "bc", "c")),
        # Piepho's point: groups need not be intervals of the sorted table
        (3, [(0, 1)], ("a", "b", "ab")),
    ],
)
def test_letters_of_hand_cases(n_items: int, different: list[tuple[int, int]], expected: tuple[str, ...]) -> None:
    assert compact_letters(n_items, different) == expected


def test_a_letter_is_shared_exactly_where_a_pair_does_not_differ() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        n_items = int(rng.integers(1, 9))
        pairs = list(itertools.combinations(range(n_items), 2))
        different = [pair for pair in pairs if rng.random() < rng.random()]
        letters = compact_letters(n_items, different)
        assert all(letters)
        for pair in pairs:
            shared = set(letters[pair[0]]) & set(letters[pair[1]])
            assert bool(shared) == (pair not in different), (n_items, different, letters)


def test_no_letter_is_superfluous_by_containment() -> None:
    letters = compact_letters(6, [(0, 3), (0, 4), (0, 5), (1, 4), (1, 5), (2, 5)])
    members = {letter: {i for i, own in enumerate(letters) if letter in own} for letter in set("".join(letters))}
    assert not any(a < b for a, b in itertools.permutations(members.values(), 2))


def test_wrong_positions_are_named() -> None:
    with pytest.raises(MetricError, match=r"^Expected pairs of two positions in \[0, 1\], got \(0, 2\)\.$"):
        compact_letters(2, [(0, 2)])
    with pytest.raises(MetricError, match=r"got \(1, 1\)"):
        compact_letters(2, [(1, 1)])
