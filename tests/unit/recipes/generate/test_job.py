from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.recipes.generate.job import FINAL_KINDS, MAX_SEED, Job, Outcome, derive_seed

JOB = Job(
    "sd15", "diffusers", "owner/name", "abc", "a fox", "blur", 7, {"steps": 2, "size": [8, 8]}, "1" * 64, "2" * 64
)

CHANGES: dict[str, Any] = {
    "generator": "sd16",
    "kind": "command",
    "model": "owner/other",
    "model_version": "abd",
    "prompt": "a hare",
    "negative_prompt": None,
    "seed": 8,
    "parameters": {"steps": 3, "size": [8, 8]},
    "image_sha256": None,
    "mask_sha256": "3" * 64,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_deciding_part_changes_the_id(name: str) -> None:
    assert replace(JOB, **{name: CHANGES[name]}).job_id != JOB.job_id


def test_facts_for_the_manifest_do_not_change_the_id() -> None:
    assert replace(JOB, fields={"prompt_id": "p"}, notes={"mask": "m"}).job_id == JOB.job_id
    assert {field.name for field in fields(Job)} == {*CHANGES, "fields", "notes"}


def test_the_order_of_parameters_does_not_change_the_id() -> None:
    assert replace(JOB, parameters={"size": [8, 8], "steps": 2}).job_id == JOB.job_id


def test_the_id_is_the_same_in_every_release() -> None:
    # A changed id would make every image that users have paid for once more.
    assert JOB.job_id == "a2d0aca27c0ae037cc1889611306eeea81ab2ae3fd97f01a80f6877f17244b8c"


def test_parts_do_not_run_into_one_another() -> None:
    assert replace(JOB, model="a", model_version="bc").job_id != replace(JOB, model="ab", model_version="c").job_id


@settings(max_examples=20)
@given(st.integers(0, 2**40), st.text(max_size=20), st.integers(0, 1000))
def test_seeds_stay_in_range_and_depend_on_every_part(seed: int, name: str, index: int) -> None:
    value = derive_seed(seed, name, index)
    assert 0 <= value <= MAX_SEED
    assert value == derive_seed(seed, name, index)


def test_seeds_differ_between_prompts_and_numbers() -> None:
    seeds = {derive_seed(0, f"p{prompt}", index) for prompt in range(200) for index in range(5)}
    assert len(seeds) == 1000


def test_failures_alone_are_tried_again() -> None:
    assert sorted(FINAL_KINDS) == ["blocked", "image", "refused"]
    assert not Outcome("failed", None, "no luck").is_final


@pytest.mark.parametrize(("kind", "data"), [("image", None), ("refused", b"x")])
def test_bytes_go_with_images_alone(kind: Any, data: bytes | None) -> None:
    with pytest.raises(AssertionError, match="data goes with images"):
        Outcome(kind, data)
