from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.recipe import SplitPolicy, SplitRule
from forgery_det.recipes.split import STRADDLES, assign_splits, hashed_split, rule_matches, unit_hash

FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}
RULES = (
    SplitRule("test", generator=("held-out",)),
    SplitRule("test", paradigm=("mllm",), label=1),
    SplitRule("val", released_from=date(2024, 1, 1), released_before=date(2025, 1, 1)),
)
POLICY = SplitPolicy(FRACTIONS, "salt", RULES)


def row(
    source_id: str, generator: str = "camera", paradigm: str = "camera", released: date | None = None
) -> dict[str, Any]:
    return {
        "source_id": source_id,
        "generator": generator,
        "paradigm": paradigm,
        "label": int(paradigm != "camera"),
        "release_date": released,
    }


def test_unit_hash_is_uniform() -> None:
    places = np.array([unit_hash("v1", f"photo{index}") for index in range(20_000)])
    counts = np.histogram(places, bins=20, range=(0.0, 1.0))[0]
    # Chi-squared with 19 degrees of freedom: 43.8 is its 99.9 % point.
    assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 43.8
    assert 0.0 <= places.min() <= places.max() < 1.0


def test_salt_and_source_do_not_run_into_each_other() -> None:
    assert unit_hash("ab", "c") != unit_hash("a", "bc")


def test_the_hash_is_fixed_for_ever() -> None:
    """Changing the hash would move the images of every published dataset: these numbers must never change."""
    assert unit_hash("samples-1", "photo/0001") == 0.7166131391936335


def test_fractions_are_met_and_their_order_does_not_matter() -> None:
    policy = SplitPolicy(FRACTIONS, "salt", ())
    backwards = SplitPolicy(dict(reversed(FRACTIONS.items())), "salt", ())
    splits = [hashed_split(f"photo{index}", policy) for index in range(10_000)]
    assert splits == [hashed_split(f"photo{index}", backwards) for index in range(10_000)]
    for name, fraction in FRACTIONS.items():
        assert splits.count(name) / 10_000 == pytest.approx(fraction, abs=0.02)


def test_fractions_that_grow_move_images_only_towards_the_first_split() -> None:
    smaller = SplitPolicy({"train": 0.6, "test": 0.4}, "s", ())
    larger = SplitPolicy({"train": 0.8, "test": 0.2}, "s", ())
    for index in range(500):
        if hashed_split(f"p{index}", smaller) == "train":
            assert hashed_split(f"p{index}", larger) == "train"


@pytest.mark.parametrize(
    ("member", "split"),
    [
        (row("a", "held-out", "diffusion", date(2024, 5, 1)), "test"),
        (row("a", "janus", "mllm", date(2024, 5, 1)), "test"),
        (row("a", "flux", "diffusion", date(2024, 1, 1)), "val"),
        (row("a", "flux", "diffusion", date(2024, 12, 31)), "val"),
    ],
)
def test_the_first_rule_that_matches_wins(member: dict[str, Any], split: str) -> None:
    (assignment,) = assign_splits([member], POLICY)
    assert assignment.split == split


def test_without_a_matching_rule_the_hash_decides() -> None:
    for member in (row("a"), row("a", "flux", "diffusion", date(2025, 1, 1)), row("a", "sd", "diffusion")):
        (assignment,) = assign_splits([member], POLICY)
        assert assignment.split == hashed_split("a", POLICY)


def test_a_camera_matches_no_rule_with_a_date() -> None:
    assert not rule_matches(SplitRule("val", released_before=date(2030, 1, 1)), row("a"))
    assert rule_matches(SplitRule("val", label=0), row("a"))
    assert rule_matches(SplitRule("val"), row("a"))


def test_members_that_the_rule_does_not_match_go_to_the_quarantine() -> None:
    train_id = next(f"s{i}" for i in range(100) if hashed_split(f"s{i}", POLICY) == "train")
    test_id = next(f"s{i}" for i in range(100) if hashed_split(f"s{i}", POLICY) == "test")
    rows = [row(train_id), row(train_id, "held-out", "gan"), row(test_id), row(test_id, "held-out", "gan")]
    assigned = assign_splits(rows, POLICY)
    assert [a.split for a in assigned] == [None, "test", "test", "test"]
    assert assigned[0].reason == STRADDLES
    assert assigned[0].detail == (
        f"Belongs to 'train', but source_id '{train_id}' is placed in 'test' by a rule that matches another image "
        "of it."
    )


def test_of_two_rules_the_earlier_wins_the_group() -> None:
    rows = [row("g", "flux", "diffusion", date(2024, 6, 1)), row("g", "held-out", "gan")]
    assert [a.split for a in assign_splits(rows, POLICY)] == [None, "test"]


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from([f"s{index}" for index in range(6)]),
        st.sampled_from(["held-out", "flux", "sd"]),
        st.sampled_from(["camera", "gan", "mllm"]),
        st.sampled_from([None, date(2023, 1, 1), date(2024, 6, 1)]),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_adding_rows_moves_no_image_and_no_source_straddles(old: list, new: list, random: Any) -> None:
    before = assign_splits(old, POLICY)
    order = list(range(len(old) + len(new)))
    random.shuffle(order)
    everything = old + new
    after = dict(zip(order, assign_splits([everything[i] for i in order], POLICY), strict=True))
    for index, assignment in enumerate(before):
        if assignment.split is not None:
            # An image may be sent to the quarantine by a new member of its group, but never to another split.
            assert after[index].split in {assignment.split, None}
    places: dict[str, set[str]] = {}
    for index, assignment in after.items():
        if assignment.split is not None:
            places.setdefault(everything[index]["source_id"], set()).add(assignment.split)
        else:
            assert assignment.reason == STRADDLES
    assert all(len(splits) == 1 for splits in places.values())
    # A group is never emptied: whoever decides its split stays.
    assert set(places) == {member["source_id"] for member in everything}


def test_wrong_policies_are_told() -> None:
    with pytest.raises(ConfigError, match=r"Expected fractions that sum to 1, got train 0.7 \+ test 0.2 = 0.9 \(split"):
        assign_splits([], SplitPolicy({"train": 0.7, "test": 0.2}, "s", ()))
    with pytest.raises(ConfigError, match=r"Expected fractions that sum to 1, got none = 0"):
        assign_splits([], SplitPolicy({}, "s", ()))
    with pytest.raises(ConfigError, match=r"Expected the fraction of 'train' in \[0, 1\], got 1.5"):
        assign_splits([], SplitPolicy({"train": 1.5, "test": -0.5}, "s", ()))
    with pytest.raises(ConfigError, match=r"Unknown split 'tests' \(split of the recipe\): did you mean 'test'"):
        assign_splits([], SplitPolicy({"train": 1.0}, "s", (SplitRule("tests"),)))
