from __future__ import annotations

import polars as pl

from forgery_det.audits import AuditFinding, audit
from forgery_det.core.manifest import Manifest
from synth.planted import Planter


def findings(planter: Planter, name: str, **options: int | None) -> dict[str, AuditFinding]:
    return {finding.slice: finding for finding in audit(planter.root, only=[name], **options).findings}


def test_a_clean_dataset_passes(planter: Planter) -> None:
    planter.build()
    for name in ("class_presence", "missing_files"):
        assert {finding.level for finding in findings(planter, name).values()} == {"pass"}


def test_a_split_with_one_class_fails(planter: Planter) -> None:
    for entry in planter.of_label(0):
        if entry["split"] == "test":
            entry["split"] = "train"
    planter.build()
    found = findings(planter, "class_presence")
    assert (found["split=test"].level, found["split=test"].value) == ("fail", 1)
    assert found["split=test"].detail == (
        "Split 'test' has no real image: nothing can be tested on it. Change the split rules of the recipe."
    )
    assert found["split=train"].level == found["split=val"].level == "pass"


def test_an_absent_split_warns(planter: Planter) -> None:
    for entry in planter.plan:
        entry["split"] = "test"
    planter.build()
    found = findings(planter, "class_presence")
    assert [found[f"split={name}"].level for name in ("train", "val", "test")] == ["warn", "warn", "pass"]


def test_a_missing_file_fails(planter: Planter) -> None:
    dataset = planter.build()
    gone = Manifest.load(dataset).frame.row(5, named=True)
    (dataset / gone["path"]).unlink()
    found = findings(planter, "missing_files")
    assert (found["problem=missing"].level, found["problem=missing"].value) == ("fail", 1)
    assert found["problem=missing"].rows == ({"image_id": gone["image_id"], "path": gone["path"]},)
    assert (found["problem=changed"].level, found["problem=changed"].n) == ("pass", 47)


def test_a_changed_file_fails(planter: Planter) -> None:
    dataset = planter.build()
    victim = sorted(dataset.glob("images/*/*"))[3]
    victim.write_bytes(victim.read_bytes() + b"\0")
    (row,) = findings(planter, "missing_files")["problem=changed"].rows
    assert row["image_id"] == victim.stem
    assert row["problem"] == "sha256 differs from image_id"


def test_facts_that_the_file_does_not_have_fail(planter: Planter) -> None:
    manifest = Manifest.load(planter.build())
    lying = manifest.frame.with_columns(pl.lit(512, pl.Int64).alias("width_px"))
    Manifest(lying, manifest.root).write()
    found = findings(planter, "missing_files")["problem=changed"]
    assert (found.level, found.value) == ("fail", 48)
    assert found.rows[0]["problem"] == "width_px is 48, listed as 512"


def test_a_sample_is_enough_where_it_is_asked_for(planter: Planter) -> None:
    planter.build()
    found = findings(planter, "missing_files", check_files=30)["problem=changed"]
    assert found.n == 30
    assert found.detail == "The bytes and facts of 30 files agree with the manifest. Looked at 30 of 48 images."
