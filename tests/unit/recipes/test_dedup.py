from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.dedup import ACROSS_CLASSES, EXACT, NEAR, deduplicate
from forgery_det.recipes.recipe import DedupPolicy

BASE = 0xF0F0F0F0F0F0F0F0
FAR = 0x00FF00FF00FF00FF


def row(name: str, value: int | None = BASE, label: int = 0, side: int = 64, **facts: Any) -> dict[str, Any]:
    return {
        "image_id": name[0] * 64,
        "label": label,
        "phash": None if value is None else f"{value:016x}",
        "width_px": side,
        "height_px": side,
        "source": "photos",
        "source_id": name,
        "generator": "sdxl" if label else "camera",
        "content_id": None,
        "prompt_id": None,
    } | facts


def outcome(rows: list[dict[str, Any]], policy: DedupPolicy | None = None) -> dict[str, str]:
    dropped = deduplicate(rows, policy or DedupPolicy())
    return {rows[d.index]["source_id"]: d.reason for d in dropped}


def test_of_equal_bytes_the_smallest_source_stays() -> None:
    rows = [row("a2", None), row("a1", None), row("b1", None)]
    assert outcome(rows) == {"a2": EXACT}
    (dropped,) = deduplicate(rows, DedupPolicy())
    assert (dropped.other_image_id, dropped.detail) == ("a" * 64, "The same bytes as an image of photos:a1.")


def test_of_near_copies_the_largest_stays() -> None:
    assert outcome([row("a", side=64), row("b", BASE ^ 0b1111, side=128), row("c", FAR)]) == {"a": NEAR}


def test_beyond_the_distance_both_stay() -> None:
    rows = [row("a"), row("b", BASE ^ 0b11111)]
    assert outcome(rows) == {}
    assert outcome(rows, DedupPolicy(phash_distance=5)) == {"b": NEAR}


def test_a_chain_is_thinned_out_not_wiped_out() -> None:
    chain = [row(name, BASE ^ ((1 << (3 * step)) - 1)) for step, name in enumerate("abcde")]
    # Each link is 3 bits from the next, 6 from the next but one: every second one stays.
    assert outcome(chain) == {"b": NEAR, "d": NEAR}


def test_stages_can_be_switched_off() -> None:
    rows = [row("a1"), row("a2"), row("b", BASE ^ 1)]
    assert outcome(rows, DedupPolicy(exact=True, phash_distance=None)) == {"a2": EXACT}
    assert outcome(rows, DedupPolicy(exact=False, phash_distance=None)) == {}


def test_equal_bytes_of_both_classes_all_go() -> None:
    assert outcome([row("a1", None), row("a2", None, label=1)]) == {"a1": ACROSS_CLASSES, "a2": ACROSS_CLASSES}


def test_look_alikes_of_both_classes_all_go() -> None:
    rows = [row("a"), row("b", BASE ^ 1), row("c", BASE ^ 1, label=1), row("d", FAR, label=1)]
    assert outcome(rows) == {"a": ACROSS_CLASSES, "b": ACROSS_CLASSES, "c": ACROSS_CLASSES}


def test_a_photograph_and_its_reconstructions_are_alike_on_purpose() -> None:
    rows = [
        row("a", content_id="photo1"),
        row("b", BASE ^ 1, 1, content_id="photo1", generator="vae-1"),
        row("c", BASE ^ 2, 1, content_id="photo1", generator="vae-2"),
        row("d", BASE ^ 3, 1, content_id="photo1", generator="vae-2"),
    ]
    assert outcome(rows) == {"d": NEAR}
    other_content = [rows[0], rows[1] | {"content_id": "photo2"}]
    assert outcome(other_content) == {"a": ACROSS_CLASSES, "b": ACROSS_CLASSES}


def test_flat_images_are_no_perceptual_duplicates() -> None:
    assert outcome([row("a", 1 << 63), row("b", 1 << 63), row("c", 1 << 63, label=1)]) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_the_answer_does_not_depend_on_the_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(12):
        flips = sum(1 << int(bit) for bit in rng.choice(8, rng.integers(0, 6), replace=False))
        content = ["x", "y", None][rng.integers(3)]
        label = int(rng.random() < 0.3)
        facts = {"content_id": content, "image_id": f"{rng.integers(9):064x}", "source_id": f"s{index}"}
        rows.append(row("z", BASE ^ flips, label, int(rng.integers(60, 62)), **facts))
    shuffled = [rows[index] for index in rng.permutation(len(rows))]
    assert outcome(rows) == outcome(shuffled)
    dropped = {d.index for d in deduplicate(rows, DedupPolicy())}
    rest = [rows[index] for index in range(len(rows)) if index not in dropped]
    assert outcome(rest) == {}


def test_many_copies_are_linear() -> None:
    rows = [row(f"r{index:05}", label=index % 2, image_id=f"{index:064x}") for index in range(4000)]
    assert set(outcome(rows).values()) == {ACROSS_CLASSES}
    same_class = [r | {"label": 0, "generator": "camera"} for r in rows]
    assert len(outcome(same_class)) == 3999


def test_wrong_distance_is_told() -> None:
    with pytest.raises(ConfigError, match=r"Expected a perceptual distance in \[0, 16\], got 40"):
        deduplicate([row("a")], DedupPolicy(phash_distance=40))
