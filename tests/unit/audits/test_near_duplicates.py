from __future__ import annotations

import numpy as np
import pytest

from forgery_det.audits import AuditFinding, audit
from forgery_det.audits import near_duplicates as module
from forgery_det.audits.near_duplicates import MIRROR_MASK, matches, mirror_candidates
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.phash import parse_hashes, phash
from synth.planted import Planter, picture


def findings(planter: Planter, **options: int) -> dict[str, AuditFinding]:
    return {one.slice: one for one in audit(planter.build(), only=["near_duplicates"], **options).findings}


def copy_of(planter: Planter, index: int, **changes: object) -> None:
    planter.plan.append(planter.plan[index] | {"source_id": f"copy-{len(planter.plan)}"} | changes)


def test_a_clean_dataset_has_no_copies(planter: Planter) -> None:
    assert {one.level for one in findings(planter).values()} == {"pass"}


def test_a_mirrored_and_saved_again_copy_fails_across_splits(planter: Planter) -> None:
    copy_of(planter, 0, split="test", mirror=True, quality=70)
    found = findings(planter)
    assert (found["across_splits"].level, found["across_splits"].value) == ("fail", 2)
    assert {row["alike"] for row in found["across_splits"].rows} == {"mirrored"}


def test_a_crop_in_the_other_class_fails(planter: Planter) -> None:
    copy_of(planter, 0, label=1, generator="flux", paradigm="diffusion", crop=0.9)
    found = findings(planter)
    assert (found["across_classes"].level, found["across_classes"].value) == ("fail", 2)
    assert {row["alike"] for row in found["across_classes"].rows} == {"cropped"}


def test_plain_copies_are_left_to_the_other_audit(planter: Planter) -> None:
    copy_of(planter, 0, split="test", quality=70)
    assert {one.level for one in findings(planter).values()} == {"pass"}


def test_no_crops_are_looked_for_where_none_are_wanted(planter: Planter) -> None:
    copy_of(planter, 0, split="test", crop=0.9)
    found = findings(planter, crop_images=0)
    assert {one.level for one in found.values()} == {"pass"}
    assert found["across_splits"].detail == "No copies found. Crops were looked for among 0 of 49 images."


def test_files_that_are_gone_are_no_crash(planter: Planter) -> None:
    copy_of(planter, 0, split="test", mirror=True)
    manifest = Manifest.load(planter.build())
    for path in manifest.frame["path"]:
        manifest.image_file(path).write_bytes(b"")
    report = audit(manifest.root, only=["near_duplicates"])
    assert {one.level for one in report.findings} == {"pass"}


def test_the_guess_of_a_mirrored_hash_is_near_the_true_one() -> None:
    distance = []
    for seed in range(40):
        image = picture(seed, 64, 80)
        plain, mirrored = parse_hashes([phash(image), phash(np.ascontiguousarray(image[:, ::-1]))])
        distance.append(int(np.bitwise_count(mirrored ^ plain ^ MIRROR_MASK)))
    assert np.mean(np.array(distance) <= module.FLIP_REACH) > 0.95
    assert np.median(distance) <= 4


def test_many_hashes_get_the_shorter_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    one = parse_hashes(["8aa2575bf12e6d04"])[0]
    pair = np.array([one, one ^ MIRROR_MASK ^ np.uint64(0b1111_1111)], np.uint64)
    assert len(mirror_candidates(pair)) == 2
    monkeypatch.setattr(module, "MANY", 1)
    assert len(mirror_candidates(pair)) == 0


def test_matches_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 2**63, 300, dtype=np.uint64)
    probe = rng.integers(0, 2**63, 300, dtype=np.uint64)
    for row in range(0, 300, 5):
        flips = sum(1 << int(bit) for bit in rng.choice(63, row % 8, replace=False))
        probe[row] = plain[rng.integers(300)] ^ np.uint64(flips)
    usable = rng.random(300) < 0.9
    close = np.bitwise_count(probe[:, None] ^ plain[None]) <= 5
    close &= usable[:, None] & usable[None] & ~np.eye(300, dtype=bool)
    assert close.sum() > 20
    assert matches(probe, plain, usable, 5).tolist() == np.argwhere(close).tolist()
