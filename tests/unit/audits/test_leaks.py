from __future__ import annotations

import polars as pl

from forgery_det.audits import AuditFinding, audit
from forgery_det.audits.leaks import SHOWN_ROWS
from forgery_det.core.manifest import Manifest
from synth.planted import Planter, picture


def findings(planter: Planter, name: str = "duplicates_across_splits") -> dict[str, AuditFinding]:
    return {finding.slice: finding for finding in audit(planter.build(), only=[name]).findings}


def copy_of(planter: Planter, index: int, **changes: object) -> None:
    """Add the same picture again, saved at another size and quality."""
    entry = planter.plan[index]
    planter.plan.append(entry | {"quality": 70, "source_id": f"copy-{len(planter.plan)}"} | changes)


def test_a_clean_dataset_has_no_copies(planter: Planter) -> None:
    found = findings(planter)
    assert {slice_: (f.level, f.value, f.n) for slice_, f in found.items()} == {
        "across_splits": ("pass", 0, 48),
        "across_classes": ("pass", 0, 48),
        "within_split": ("pass", 0, 48),
    }


def test_a_copy_in_another_split_fails(planter: Planter) -> None:
    copy_of(planter, 0, split="test")
    found = findings(planter)
    assert (found["across_splits"].level, found["across_splits"].value) == ("fail", 2)
    assert {row["split"] for row in found["across_splits"].rows} == {"train", "test"}
    assert found["across_splits"].detail.startswith("2 images in 1 family look like an image of another split")
    assert found["within_split"].level == found["across_classes"].level == "pass"


def test_a_copy_of_a_copy_belongs_to_the_family(planter: Planter) -> None:
    for split, quality in (("train", 80), ("train", 70), ("test", 60)):
        copy_of(planter, 0, split=split, quality=quality)
    assert findings(planter)["across_splits"].value == 4


def test_a_copy_in_the_other_class_fails(planter: Planter) -> None:
    copy_of(planter, 0, label=1, generator="flux", paradigm="diffusion")
    found = findings(planter)
    assert (found["across_classes"].level, found["across_classes"].value) == ("fail", 2)
    assert found["across_splits"].level == "pass"


def test_a_copy_in_its_own_split_warns(planter: Planter) -> None:
    copy_of(planter, 0)
    found = findings(planter)
    assert (found["within_split"].level, found["within_split"].value) == ("warn", 2)


def test_a_photograph_and_its_reconstruction_are_alike_on_purpose(planter: Planter) -> None:
    planter.plan[0]["content_id"] = "scene"
    copy_of(planter, 0, label=1, generator="vae", paradigm="reconstruction", content_id="scene")
    assert {f.level for f in findings(planter).values()} == {"pass"}
    planter.plan[-1]["split"] = "test"
    assert findings(planter)["across_splits"].level == "fail"


def test_pieces_of_one_source_that_look_alike_are_no_warning(planter: Planter) -> None:
    copy_of(planter, 0, source_id=planter.plan[0]["source_id"])
    assert findings(planter)["within_split"].level == "pass"


def test_hashes_are_computed_where_the_manifest_has_none(planter: Planter) -> None:
    copy_of(planter, 0, split="test")
    manifest = Manifest.load(planter.build())
    blind = manifest.frame.with_columns(pl.lit(None, pl.String).alias("phash"))
    Manifest(blind, manifest.root).write()
    manifest.image_file(manifest.frame["path"][30]).write_bytes(b"")
    report = audit(manifest.root, only=["duplicates_across_splits"])
    found = {finding.slice: finding for finding in report.findings}
    assert found["within_split"].n == 48
    assert found["within_split"].detail.endswith("1 images could not be decoded and were left out.")
    assert found["across_splits"].value == 2


def test_a_source_in_two_splits_fails(planter: Planter) -> None:
    planter.plan[0]["source_id"] = planter.plan[30]["source_id"] = "one-photo"
    found = findings(planter, "source_across_splits")
    assert found["column=source_id"].level == "fail"
    assert found["column=source_id"].rows == ({"source_id": "one-photo", "splits": ["train", "val"], "images": 2},)
    assert found["column=content_id"].level == "pass"


def test_a_content_in_two_splits_warns(planter: Planter) -> None:
    planter.plan[0]["content_id"] = planter.plan[31]["content_id"] = "scene"
    found = findings(planter, "source_across_splits")
    assert (found["column=content_id"].level, found["column=content_id"].n) == ("warn", 2)
    assert found["column=source_id"].level == "pass"


def test_tables_are_short(planter: Planter) -> None:
    for index in range(30):
        copy_of(planter, index, split="test" if planter.plan[index]["split"] != "test" else "train")
    found = findings(planter)["across_splits"]
    assert found.value == 60
    assert len(found.rows) == SHOWN_ROWS


def test_pictures_of_the_planter_differ() -> None:
    assert not (picture(0, 8, 8) == picture(1, 8, 8)).all()
