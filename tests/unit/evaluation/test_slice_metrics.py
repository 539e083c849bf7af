from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.slice_metrics import (
    GROUP_METRICS,
    METRIC_EXPLANATIONS,
    METRIC_TITLES,
    Statistics,
    slice_records,
)
from forgery_det.evaluation.slices import Slice, make_slices
from forgery_det.evaluation.thresholds import Thresholds, no_thresholds

SEEN = frozenset({"sd-1", "flux-1"})
THRESHOLDS = Thresholds({"fpr_1pct": 1.6, "fpr_5pct": 0.9, "balanced": 0.4}, "somewhere", n_real=28)
STATISTICS = Statistics(n_replicates=200)


@pytest.fixture(scope="module")
def slices(judged: pl.DataFrame) -> tuple[Slice, ...]:
    return make_slices(judged, SEEN)


@pytest.fixture(scope="module")
def records(judged: pl.DataFrame, slices: tuple[Slice, ...]) -> dict[tuple[str, str], MetricRecord]:
    found = slice_records(judged, slices, THRESHOLDS, STATISTICS)
    assert len({(r.metric, r.slice) for r in found}) == len(found)
    return {(r.metric, r.slice): r for r in found}


def test_every_slice_has_every_metric_of_its_group(records: dict, slices: tuple[Slice, ...]) -> None:
    expected = {(metric, part.key) for part in slices for metric in GROUP_METRICS[part.group]}
    expected |= {(f"threshold@{point}", "overall") for point in THRESHOLDS.value}
    assert set(records) == expected


def test_ranking_metrics_equal_scikit_learn(records: dict, judged: pl.DataFrame, slices: tuple[Slice, ...]) -> None:
    compared = 0
    for part in slices:
        record = records.get(("auroc", part.key))
        if record is None or record.value is None:
            continue
        label, logit = judged["label"].to_numpy()[part.row_N], judged["logit"].to_numpy()[part.row_N]
        assert record.value == pytest.approx(roc_auc_score(label, logit), abs=1e-12)
        precision = records["average_precision", part.key]
        assert precision.value == pytest.approx(average_precision_score(label, logit), abs=1e-12)
        assert records["prevalence", part.key].value == pytest.approx(label.mean(), abs=1e-12)
        assert record.n == len(label)
        compared += 1
    assert compared >= 12


def test_thresholded_metrics_equal_counting(records: dict, judged: pl.DataFrame) -> None:
    real = judged.filter(pl.col("label") == 0)["logit"].to_numpy()
    janus = judged.filter(pl.col("generator") == "janus-1")["logit"].to_numpy()
    assert records["tpr@fpr_5pct", "generator=janus-1"].value == pytest.approx((janus >= 0.9).mean())
    assert records["tpr@fpr_1pct", "generator=janus-1"].n == len(janus)
    assert records["fpr@fpr_5pct", "overall"].value == pytest.approx((real >= 0.9).mean())
    assert records["fpr@fpr_5pct", "overall"].n == len(real)
    balanced = ((janus >= 0.4).mean() + (real < 0.4).mean()) / 2
    assert records["balanced_accuracy@balanced", "generator=janus-1"].value == pytest.approx(balanced)


def test_values_lie_in_their_intervals(records: dict) -> None:
    with_interval = [r for r in records.values() if r.ci_low is not None]
    assert len(with_interval) > 40
    for record in with_interval:
        assert record.ci_low <= record.value <= record.ci_high, record


def test_intervals_resample_groups_not_images(judged: pl.DataFrame, slices: tuple[Slice, ...]) -> None:
    def width(table: pl.DataFrame) -> float:
        record = slice_records(table, slices[:1], THRESHOLDS, Statistics(2000))[0]
        return record.ci_high - record.ci_low

    # every image its own group: the two crops of a photograph count twice, and the interval is too narrow
    singles = judged.with_columns(source_id=pl.col("image_id"))
    assert width(judged) > 1.1 * width(singles)


def test_small_slices_are_not_estimable(records: dict) -> None:
    why = "not estimable (n = 2 generated images, fewer than 5)"
    for metric in ("auroc", "average_precision", "balanced_accuracy@balanced", "tpr@fpr_1pct"):
        record = records[metric, "generator=rare-1"]
        assert (record.value, record.ci_low, record.ci_high, record.note) == (None, None, None, why)
    empty = records["auroc", "prompt_words=151+"]
    assert empty.note == "not estimable (n = 0 generated images, fewer than 5)"


def test_the_smallest_slice_is_an_option(judged: pl.DataFrame, slices: tuple[Slice, ...]) -> None:
    part = [part for part in slices if part.key == "generator=rare-1"]
    record = slice_records(judged, part, THRESHOLDS, dataclasses.replace(STATISTICS, min_per_class=2))[0]
    assert record.value is not None
    assert "fewer than 5" in record.note  # the interval is still marked as unreliable


def test_without_thresholds_only_ranking_is_estimable(judged: pl.DataFrame, slices: tuple[Slice, ...]) -> None:
    found = slice_records(judged, slices, no_thresholds("no val"), STATISTICS)
    for record in found:
        if "@" in record.metric:
            assert record.value is None, record
    overall = {r.metric: r for r in found if r.slice == "overall"}
    assert overall["tpr@fpr_1pct"].note == "not estimable (no threshold: no val)"
    assert overall["threshold@fpr_1pct"].value is None
    assert overall["auroc"].value is not None


def test_thresholds_are_recorded_as_facts(records: dict) -> None:
    record = records["threshold@fpr_5pct", "overall"]
    assert (record.value, record.n, record.higher_is_better) == (0.9, 28, None)
    assert record.note == "from somewhere"


def test_directions(records: dict) -> None:
    assert records["auroc", "overall"].higher_is_better is True
    assert records["fpr@fpr_5pct", "overall"].higher_is_better is False
    assert records["prevalence", "overall"].higher_is_better is None


@pytest.mark.slow
def test_same_seed_same_numbers_whatever_the_row_order(judged: pl.DataFrame) -> None:
    order = np.random.default_rng(1).permutation(judged.height)
    mixed = judged[order]
    first = slice_records(judged, make_slices(judged, SEEN), THRESHOLDS, STATISTICS)
    second = slice_records(mixed, make_slices(mixed, SEEN), THRESHOLDS, STATISTICS)
    assert first == second


def test_every_column_has_a_title_and_an_explanation() -> None:
    columns = {metric for metrics in GROUP_METRICS.values() for metric in metrics}
    assert columns <= set(METRIC_TITLES)
    assert columns <= set(METRIC_EXPLANATIONS)


def test_large_slices_keep_the_exact_value_and_nearly_the_interval(
    judged: pl.DataFrame, slices: tuple[Slice, ...], records: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgery_det.evaluation.slice_metrics.EXACT_UP_TO", 10)
    monkeypatch.setattr("forgery_det.evaluation.slice_metrics.REPLICATE_BINS", 25)
    binned = {(r.metric, r.slice): r for r in slice_records(judged, slices, THRESHOLDS, STATISTICS)}
    exact, coarse = records["auroc", "overall"], binned["auroc", "overall"]
    assert coarse.value == exact.value
    assert coarse.ci_low != exact.ci_low
    assert coarse.ci_low == pytest.approx(exact.ci_low, abs=0.02)
    assert binned["tpr@fpr_5pct", "overall"] == records["tpr@fpr_5pct", "overall"]
