from __future__ import annotations

from io import BytesIO

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.stats import ks_2samp, wasserstein_distance

from forgery_det.audits import AuditFinding, audit, fact_distances
from forgery_det.audits.fact_distances import (
    KOLMOGOROV_SMIRNOV,
    TOTAL_VARIATION,
    Distance,
    distances,
    permutation_p,
)
from forgery_det.audits.facts import facts_of, quantisation_tables
from forgery_det.core.manifest import Manifest
from synth.planted import Planter, picture


def findings(planter: Planter) -> dict[str, AuditFinding]:
    report = audit(planter.build(), only=["histogram_distances"], n_replicates=100)
    return {finding.slice: finding for finding in report.findings}


def facts(planter: Planter) -> dict[str, dict]:
    return {row["fact"]: row for row in findings(planter)["overall"].rows}


def saved(**options: object) -> bytes:
    target = BytesIO()
    Image.fromarray(picture(0, 40, 48)).save(target, "JPEG", **{"quality": 90, **options})
    return target.getvalue()


def table(values: list, label: np.ndarray, name: str) -> pl.DataFrame:
    return pl.DataFrame({"label": label, "source_id": [f"s{i}" for i in range(len(label))], name: values})


def test_a_clean_dataset_passes_in_every_fact(planter: Planter) -> None:
    found = findings(planter)
    assert found["overall"].level == "pass"
    rows = {row["fact"]: row for row in found["overall"].rows}
    assert {row["level"] for row in rows.values()} == {"pass"}
    assert {"size", "codec", "quantisation_tables", "chroma_subsampling", "colour_profile", "exif"} <= set(rows)
    assert rows["codec"]["value"] == 0.0


@pytest.mark.parametrize(
    ("plant", "names"),
    [
        ({"width": 56}, {"size", "aspect"}),
        ({"codec": "webp"}, {"codec"}),
        ({"quality": 70}, {"jpeg_quality", "quantisation_tables"}),
    ],
)
def test_the_fact_that_differs_is_named(planter: Planter, plant: dict, names: set[str]) -> None:
    for entry in planter.of_label(1):
        entry.update(plant)
    found = findings(planter)["overall"]
    failed = {row["fact"] for row in found.rows if row["level"] == "fail"}
    assert names <= failed <= names | {"bytes_per_pixel"}
    assert (found.level, found.value) == ("fail", 1.0)
    assert all(name in found.detail for name in names)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"subsampling": "4:4:4"}, "chroma_subsampling"),
        ({"progressive": True}, "progressive"),
        ({"icc_profile": b"profile"}, "colour_profile"),
        ({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, "exif"),
        ({"qtables": [[3] * 64, [5] * 64]}, "quantisation_tables"),
    ],
)
def test_facts_that_the_manifest_does_not_list_are_read_from_the_file(options: dict, name: str) -> None:
    plain, changed = facts_of(saved()), facts_of(saved(**options))
    assert plain[name] != changed[name]


def test_quantisation_tables_do_not_depend_on_the_picture_or_fill_bytes() -> None:
    data = saved()
    other = BytesIO()
    Image.fromarray(picture(9, 64, 64)).save(other, "JPEG", quality=90)
    filled = data.replace(b"\xff\xdb", b"\xff\xff\xdb", 1)
    assert quantisation_tables(data) == quantisation_tables(other.getvalue()) == quantisation_tables(filled)
    assert quantisation_tables(data) != quantisation_tables(saved(quality=89))


def test_distances_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(300) % 2
    value = rng.normal(size=300).round(1) + 0.5 * label
    (found,) = distances(table(value.tolist(), label, "jpeg_quality"), 100, 0)
    real, generated = value[label == 0], value[label == 1]
    assert found.value == pytest.approx(ks_2samp(real, generated).statistic)
    assert found.wasserstein == pytest.approx(wasserstein_distance(real, generated) / value.std())
    category = rng.choice(list("abc"), 300)
    (found,) = distances(table(category.tolist(), label, "codec"), 100, 0)
    shares = [np.array([np.mean(category[label == side] == name) for name in "abc"]) for side in (0, 1)]
    assert found.value == pytest.approx(0.5 * np.abs(shares[0] - shares[1]).sum())


def test_the_basic_interval_takes_the_bias_away() -> None:
    """No difference at all: the plain distance of 40 images in 10 categories is far above 0, its interval is not."""
    lows = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = [f"c{number}" for number in rng.integers(0, 10, 40)]
        (found,) = distances(table(values, np.arange(40) % 2, "codec"), 200, seed)
        assert found.value is not None
        assert found.low is not None
        lows.append(found.low)
        assert not found.exceeds(0.2)
    assert np.median(lows) < 0.2


def test_values_that_are_all_different_are_no_difference() -> None:
    (found,) = distances(table([f"{n} x 1" for n in range(60)], np.arange(60) % 2, "codec"), 100, 0)
    assert found.value == 1.0
    assert found.p_value == 1.0
    assert not found.exceeds(0.2)


def test_one_source_with_many_images_is_no_proof() -> None:
    """All 50 generated images of one codec come from one source, the others agree with the real ones."""
    label = np.array([0] * 60 + [1] * 60)
    frame = table(["jpeg"] * 70 + ["png"] * 50, label, "codec")
    sources = [f"r{i}" for i in range(60)] + [f"g{i}" for i in range(10)] + ["g-many"] * 50
    (clustered,) = distances(frame.with_columns(pl.Series("source_id", sources)), 200, 0)
    (apart,) = distances(frame, 200, 0)
    assert apart.exceeds(0.2)
    assert not clustered.exceeds(0.2)


def test_permutations_are_fair_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_distances, "N_PERMUTATIONS", 99)
    label, group = np.arange(80) % 2, np.array([f"s{i}" for i in range(80)])
    p_values = []
    for seed in range(12):
        code = np.random.default_rng(seed).integers(0, 5, 80).astype(float)
        p_values.append(permutation_p(TOTAL_VARIATION, code, label, group, seed))
    assert 0.2 < np.mean(p_values) < 0.8
    assert permutation_p(KOLMOGOROV_SMIRNOV, label.astype(float), label, group, 0) == 1 / 100


def test_few_sources_are_not_estimable(planter: Planter) -> None:
    for entry in planter.of_label(0):
        entry["source_id"] = "one-photo"
    found = findings(planter)["overall"]
    assert (found.level, found.value) == ("not_estimable", None)
    assert "1 source_ids of real" in found.detail


def test_original_files_warn_and_never_fail(planter: Planter) -> None:
    dataset = planter.build()
    origins = Manifest.load(dataset).frame.select(
        "image_id",
        pl.when(pl.col("label") == 1).then(pl.lit("png")).otherwise(pl.lit("jpeg")).alias("codec"),
        pl.lit("4:2:0").alias("chroma_subsampling"),
    )
    origins.write_parquet(dataset / "origins.parquet")
    found = findings(planter)
    assert found["overall"].level == "pass"
    assert (found["file=original"].level, found["file=original"].value) == ("warn", 1.0)
    assert [row["fact"] for row in found["file=original"].rows] == ["codec", "chroma_subsampling"]


def test_without_origins_nothing_is_known(planter: Planter) -> None:
    found = findings(planter)["file=original"]
    assert found.level == "not_estimable"
    assert found.detail == "There is no origins.parquet, so what the files were before alignment is unknown."


def test_unreadable_files_are_left_out_and_counted(planter: Planter) -> None:
    dataset = planter.build()
    for victim in sorted(dataset.glob("images/*/*"))[:5]:
        victim.write_bytes(b"no image")
    (found, *_) = audit(dataset, only=["histogram_distances"], n_replicates=50).findings
    assert found.n == 43
    assert found.detail.endswith("Looked at 43 of 48 images.")


def test_a_distance_needs_both_interval_and_chance() -> None:
    def distance(low: float | None, p_value: float) -> Distance:
        return Distance("codec", "total_variation", 0.5, low, 0.7, p_value, 9, {})

    assert distance(0.3, 0.01).exceeds(0.2)
    assert not distance(0.1, 0.01).exceeds(0.2)
    assert not distance(0.3, 0.2).exceeds(0.2)
    assert distance(None, 0.01).exceeds(0.2)
