from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from forgery_det.audits import AuditFinding, audit
from forgery_det.audits.file_facts import fact_table, one_codec_policy, single_facts
from forgery_det.core.artefacts import write_json
from forgery_det.core.errors import ManifestError
from forgery_det.core.manifest import Manifest
from synth.planted import Planter


def findings(planter: Planter, name: str = "file_facts", **options: Any) -> dict[str, AuditFinding]:
    report = audit(planter.build(), only=[name], n_replicates=100, **options)
    return {finding.slice: finding for finding in report.findings}


def test_a_clean_dataset_passes(planter: Planter) -> None:
    found = findings(planter)
    assert {finding.level for finding in found.values()} == {"pass"}
    # One size and one codec: nothing varies, so the AUROC is exactly 0.5.
    assert found["facts=without_bytes_per_pixel"].value == 0.5


@pytest.mark.parametrize(
    ("plant", "fact"),
    [
        ({"width": 56}, "width_px"),
        ({"width": 40, "height": 48}, "aspect"),
        ({"codec": "png", "quality": None}, "codec=png"),
        ({"quality": 75}, "jpeg_quality"),
    ],
)
def test_a_planted_fact_fails_and_is_named(planter: Planter, plant: dict[str, Any], fact: str) -> None:
    for entry in planter.of_label(1):
        entry.update(plant)
    found = findings(planter)
    assert found["overall"].level == found["facts=without_bytes_per_pixel"].level == "fail"
    assert found["overall"].value == 1.0
    assert found["overall"].detail.startswith("Facts of the files alone tell real from generated with AUROC 1.00 [")
    perfect = [row["fact"] for row in found["overall"].rows if row["auroc_either_way"] == 1.0]
    assert fact in perfect


def test_a_rule_that_no_line_draws_is_found(planter: Planter) -> None:
    """Generated images are exactly 48 px wide, real ones narrower or wider: the medians agree."""
    for index, entry in enumerate(planter.of_label(0)):
        entry["width"] += 4 if index % 2 else -4
    assert findings(planter)["facts=without_bytes_per_pixel"].value == pytest.approx(1.0)


@pytest.mark.slow
def test_a_shortcut_of_one_generator_is_found_in_its_slice(planter: Planter) -> None:
    for entry in planter.plan:
        if entry["generator"] == "flux":
            entry["width"] = 56
    found = findings(planter)
    assert found["generator=flux"].level == "fail"
    assert found["generator=sdxl"].level == "pass"


def test_a_shortcut_of_one_paradigm_is_found_in_its_slice(planter: Planter) -> None:
    for entry in planter.plan:
        if entry["generator"] == "flux":
            entry.update({"paradigm": "mllm", "width": 56})
    found = findings(planter)
    assert found["paradigm=mllm"].level == "fail"
    assert found["paradigm=diffusion"].level == "pass"


def test_a_shortcut_of_one_split_is_found_in_its_slice(planter: Planter) -> None:
    for entry in planter.of_label(1):
        if entry["split"] == "train":
            entry["height"] = 56
    found = findings(planter)
    assert found["split=train"].level == "fail"
    assert found["split=test"].level == "pass"


def test_another_webp_quality_shows_in_bytes_per_pixel(planter: Planter) -> None:
    for entry in planter.plan:
        entry.update({"codec": "webp", "quality": 95 if entry["label"] else 60})
    found = findings(planter)
    assert found["overall"].level == "fail"
    assert found["facts=without_bytes_per_pixel"].level == "pass"


def test_under_one_recorded_policy_bytes_per_pixel_only_warn(planter: Planter) -> None:
    """Generated images are flatter in their upper half: fewer bytes under one policy, which is content."""
    for entry in planter.plan:
        entry.update({"codec": "webp", "quality": 90, "tint": 400 if entry["label"] else 0})
    write_json(planter.root / "dataset.json", {"policies": {"align": {"codec": "webp", "quality": 90}}})
    found = findings(planter)
    assert found["overall"].level == "warn"
    assert "bytes per pixel only say how busy a picture is" in found["overall"].detail


def test_a_format_shortcut_fails_even_under_one_policy(planter: Planter) -> None:
    for entry in planter.of_label(1):
        entry["width"] = 56
    assert one_codec_policy(Manifest.load(planter.build()))
    assert findings(planter)["overall"].level == "fail"


def test_crops_of_few_photographs_are_not_estimable(planter: Planter) -> None:
    for index, entry in enumerate(planter.of_label(0)):
        entry["source_id"] = f"photo{index % 4}"
    found = findings(planter)
    assert found["overall"].level == "not_estimable"
    assert found["overall"].value is None
    assert "4 source_ids of real and 24 of generated images, 5 of each needed" in found["overall"].detail


@pytest.mark.slow
def test_memorised_sources_do_not_count(planter: Planter) -> None:
    """Each source has a width of its own that all its pieces share: only a model that saw the source could use it."""
    widths = np.random.default_rng(0).permutation(np.arange(40, 56))
    for label in (0, 1):
        for index, entry in enumerate(planter.of_label(label)):
            source = index // 3 + 8 * label
            entry.update({"source_id": f"source{source:02}", "width": int(widths[source]), "split": "train"})
    grouped = findings(planter)["facts=without_bytes_per_pixel"]
    for index, entry in enumerate(planter.plan):
        entry["source_id"] = f"piece{index}"
    ungrouped = findings(planter)["facts=without_bytes_per_pixel"]
    assert (grouped.level, ungrouped.level) == ("pass", "fail")
    assert grouped.value is not None
    assert ungrouped.value is not None
    assert grouped.value < ungrouped.value - 0.2


@pytest.mark.slow
def test_the_order_of_the_rows_does_not_matter(planter: Planter) -> None:
    for entry in planter.of_label(1)[::2]:
        entry["quality"] = 80
    first = findings(planter)
    planter.plan.reverse()
    assert findings(planter) == first


@pytest.mark.slow
def test_a_sample_is_seeded_and_said(planter: Planter) -> None:
    found = findings(planter, max_images=40)
    assert found["overall"].n == 40
    assert found["overall"].detail.endswith("Looked at 40 of 48 images.")
    assert findings(planter, max_images=40) == found


def test_single_facts_give_auroc_and_medians() -> None:
    facts = pl.DataFrame({"width_px": [1.0, 2.0, 3.0, 4.0], "jpeg_quality": [90.0, None, 90.0, None]})
    rows = single_facts(facts, np.array([1, 1, 0, 0]))
    assert rows[0] == {"fact": "width_px", "auroc_either_way": 1.0, "real": 3.5, "generated": 1.5}
    assert rows[1]["auroc_either_way"] == 0.5


def test_facts_that_are_never_known_are_no_facts() -> None:
    frame = pl.DataFrame({"width_px": [4], "height_px": [2], "codec": ["webp"], "jpeg_quality": [None], "n_bytes": [8]})
    assert "jpeg_quality" not in fact_table(frame).columns


def test_origin_facts_warn_and_never_fail(planter: Planter) -> None:
    dataset = planter.build()
    manifest = Manifest.load(dataset).frame
    origins = manifest.select(
        "image_id",
        pl.lit(None, pl.Int64).alias("jpeg_quality"),
        pl.when(pl.col("label") == 1).then(pl.lit("png")).otherwise(pl.lit("jpeg")).alias("codec"),
    )
    origins.write_parquet(dataset / "origins.parquet")
    found = findings(planter, "origin_facts")
    assert found["overall"].level == "warn"
    assert found["overall"].value == 1.0
    assert "traces of an earlier codec" in found["overall"].detail


def test_without_origins_nothing_is_known(planter: Planter) -> None:
    (found,) = findings(planter, "origin_facts").values()
    assert found.level == "not_estimable"
    assert found.detail == "There is no origins.parquet, so what the files were before alignment is unknown."


def test_origins_without_facts_or_without_these_images_say_nothing(planter: Planter) -> None:
    dataset = planter.build()
    image_ids = Manifest.load(dataset).frame.select("image_id")
    image_ids.write_parquet(dataset / "origins.parquet")
    (found,) = findings(planter, "origin_facts").values()
    assert found.level == "not_estimable"
    assert found.detail.startswith("origins.parquet holds none of width_px, height_px")
    image_ids.head(0).with_columns(pl.lit("png").alias("codec")).write_parquet(dataset / "origins.parquet")
    (found,) = findings(planter, "origin_facts").values()
    assert (found.level, found.n) == ("not_estimable", 0)
    (dataset / "origins.parquet").write_bytes(b"no table")
    with pytest.raises(ManifestError, match="Expected a Parquet table, got nothing readable at"):
        findings(planter, "origin_facts")


def test_each_generator_has_an_interval_or_is_named_as_too_small(planter: Planter) -> None:
    for index, entry in enumerate(planter.of_label(1)[:3]):
        entry["generator"] = "rare" if index else "single"
    found = findings(planter)
    for name in ("flux", "sdxl"):
        assert found[f"generator={name}"].value is not None
        assert found[f"generator={name}"].n > 24
    assert "generator=rare" not in found
    small = found["size=too_small"]
    assert (small.level, small.value) == ("not_estimable", None)
    assert small.detail == "Too few source_ids to say anything: generator=rare, generator=single."
    assert [row["slice"] for row in small.rows] == ["generator=rare", "generator=single"]
    assert "2 of generated images, 5 of each needed" in small.rows[0]["detail"]
