"""Planning a held-out matrix, and its numbers against the same numbers computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.core.artefacts import sha256_file, write_json
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.tables import RESULT_SCHEMA, read_table
from forgery_det.evaluation.compare_read import is_evaluated
from forgery_det.evaluation.matrix import EVERYTHING, MatrixPlan, plan_matrix, short_name, training_jobs
from forgery_det.evaluation.matrix_report import report_matrix
from forgery_det.metrics.comparison import holm
from forgery_det.metrics.delong import paired_delong
from forgery_det.metrics.ranking import auroc
from synth.runs import normal_logits, table_dataset, table_run

CONFIG: dict[str, Any] = {"alpha": 0.05, "n_replicates": 60, "seed": 0, "min_per_class": 5}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Real images and three generators in every split; sd-1 and flux-1 are diffusion, janus-1 is mllm."""
    parts = [table_dataset(tmp_path / "parts" / s, 30, 45, salt=s, split=s).frame for s in ("train", "val", "test")]
    frame = pl.concat(parts).with_columns(pl.format("{}-{}", "split", "source_id").alias("source_id"))
    (tmp_path / "photos").mkdir()
    manifest = Manifest(frame, tmp_path / "photos")
    manifest.write()
    return manifest


def names(plan: MatrixPlan) -> dict[str, tuple[str, ...]]:
    return {row.name: row.excluded for row in plan.rows}


def test_leave_one_generator_out_leaves_each_out_once(manifest: Manifest) -> None:
    plan = plan_matrix(manifest, leave_out="generator")
    assert names(plan) == {
        EVERYTHING: (), "without flux-1": ("flux-1",), "without janus-1": ("janus-1",), "without sd-1": ("sd-1",),
    }  # fmt: skip
    assert [column.name for column in plan.columns] == ["generator=flux-1", "generator=janus-1", "generator=sd-1"]
    assert plan.rows[0].reference == tuple(column.name for column in plan.columns)


def test_leaving_a_paradigm_out_takes_all_its_generators(manifest: Manifest) -> None:
    plan = plan_matrix(manifest, leave_out="paradigm")
    assert names(plan)["without diffusion"] == ("flux-1", "sd-1")
    assert names(plan_matrix(manifest, leave_out="decoder"))["without vq"] == ("janus-1",)


def test_a_generator_that_is_partly_in_what_is_left_out_goes_as_a_whole(manifest: Manifest) -> None:
    mixed = pl.when((pl.col("generator") == "sd-1") & (pl.int_range(pl.len()) % 2 == 0)).then(pl.lit("vq"))
    frame = manifest.frame.with_columns(mixed.otherwise(pl.col("decoder")).alias("decoder"))
    plan = plan_matrix(Manifest(frame, manifest.root), leave_out="decoder")
    assert names(plan)["without vq"] == ("janus-1", "sd-1")
    trained = plan_matrix(Manifest(frame, manifest.root), train_on=["decoder=vae"])
    assert names(trained)["decoder=vae"] == ("janus-1", "sd-1")


def test_train_on_test_on_excludes_what_the_filter_does_not_take(manifest: Manifest) -> None:
    plan = plan_matrix(
        manifest, train_on=["paradigm=mllm", "generator=sd-1|flux-1"], test_on=["overall", "paradigm=mllm"]
    )
    assert names(plan) == {"paradigm=mllm": ("flux-1", "sd-1"), "generator=sd-1|flux-1": ("janus-1",)}
    assert [row.reference for row in plan.rows] == [("paradigm=mllm",), ()]
    same = plan_matrix(manifest, train_on=["paradigm=mllm", "decoder=vq"])
    assert [row.name for row in same.trainings()] == ["paradigm=mllm"]


def test_what_cannot_be_trained_or_tested_is_said_in_the_plan(manifest: Manifest) -> None:
    janus = pl.col("generator") == "janus-1"
    one_kind = manifest.subset(~janus | (pl.col("split") == "test"))
    plan = plan_matrix(one_kind, leave_out="paradigm")
    (row,) = [row for row in plan.rows if row.own == "paradigm=diffusion"]
    assert row.impossible == "no generated image would be left in train and val"
    assert [training.name for training in plan.trainings()] == [EVERYTHING]
    assert "without mllm" not in names(plan)
    small = plan_matrix(manifest, leave_out="generator", min_per_class=20, only=["sd-1"])
    assert names(small).keys() == {EVERYTHING, "without sd-1"}
    with pytest.raises(ConfigError, match=r"^Expected a generator that is in training and has at least 20 test images"):
        plan_matrix(manifest, leave_out="generator", min_per_class=20)


def test_unknown_is_no_paradigm_to_leave_out(manifest: Manifest) -> None:
    unknown = pl.when(pl.col("generator") == "janus-1").then(pl.lit("unknown")).otherwise(pl.col("paradigm"))
    plan = plan_matrix(
        Manifest(manifest.frame.with_columns(unknown.alias("paradigm")), manifest.root), leave_out="paradigm"
    )
    assert names(plan).keys() == {EVERYTHING, "without diffusion"}
    assert "paradigm=unknown" in {column.name for column in plan.columns}


def test_planning_errors_teach(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"^Expected either `leave_out` or `train_on`, got neither\.$"):
        plan_matrix(manifest)
    with pytest.raises(ConfigError, match=r"^Expected either `leave_out` or `train_on`, got both\.$"):
        plan_matrix(manifest, leave_out="decoder", train_on=["decoder=vq"])
    with pytest.raises(ConfigError, match=r"^Unknown generator 'janus' \(photos\): did you mean 'janus-1'\?"):
        plan_matrix(manifest, train_on=["generator=janus"])
    with pytest.raises(
        ConfigError, match=r"^Expected generators of training and test in `only`, got 'sd-2': did you mean"
    ):
        plan_matrix(manifest, leave_out="generator", only=["sd-2"])
    with pytest.raises(
        ConfigError, match=r"^Expected at least one training that is possible, got none \(paradigm=mllm: no"
    ):
        plan_matrix(
            manifest.subset((pl.col("paradigm") != "mllm") | (pl.col("split") == "test")), train_on=["paradigm=mllm"]
        )


def test_jobs_tell_fit_what_to_leave_out_and_share_features(manifest: Manifest, tmp_path: Path) -> None:
    config = tmp_path / "fit.yaml"
    config.write_text("model: {}")
    plan = plan_matrix(manifest, leave_out="paradigm")
    jobs = training_jobs(plan, manifest, tmp_path / "out", config, {"trainer.max_epochs": 3})
    assert len({job.run for job in jobs}) == 3
    words = dict(zip(jobs[1].words[::2], jobs[1].words[1::2], strict=True))
    assert json.loads(words["--data.exclude_generators"]) == ["flux-1", "sd-1"]
    assert words["--run.features"] == str(tmp_path / "out" / "features")
    assert words["--trainer.max_epochs"] == "3"
    assert words["--run.out"] == str(jobs[1].run)
    assert "--data.exclude_generators" not in jobs[0].words
    other = training_jobs(plan, manifest, tmp_path / "out", config, {"trainer.max_epochs": 4})
    assert not {job.run for job in jobs} & {job.run for job in other}
    with pytest.raises(ConfigError, match=r"that the matrix leaves open, got \['data\.dataset'\]\.$"):
        training_jobs(plan, manifest, tmp_path, config, {"data.dataset": "x"})
    with pytest.raises(ConfigError, match=r"^Expected a configuration of `forgery-det fit`, got none at "):
        training_jobs(plan, manifest, tmp_path, tmp_path / "none.yaml", {})


@pytest.fixture
def runs(manifest: Manifest, tmp_path: Path) -> dict[str, Path]:
    """A training that saw everything, and one that saw no mllm and is bad at it; the third was not possible."""
    saw = normal_logits(manifest, 2.5, 0)
    blind = saw - 2.4 * (manifest.frame["generator"] == "janus-1").to_numpy()
    everything = table_run(tmp_path / "everything", manifest, saw, detector="npr", seen=["sd-1", "flux-1", "janus-1"])
    without = table_run(tmp_path / "without", manifest, blind, detector="npr", seen=["sd-1", "flux-1"])
    return {EVERYTHING: everything, "without mllm": without}


def test_cells_and_losses_are_the_metrics_of_the_test_split(
    manifest: Manifest, runs: dict[str, Path], tmp_path: Path
) -> None:
    plan = plan_matrix(manifest, leave_out="paradigm")
    runs["without diffusion"] = runs["without mllm"]
    out = report_matrix(plan, runs, tmp_path / "matrix", CONFIG)
    results = read_table(out / "results.parquet", RESULT_SCHEMA)
    # by hand: janus-1 and all real images of test
    mask = ((manifest.frame["split"] == "test") & manifest.frame["generator"].is_in(["camera", "janus-1"])).to_numpy()
    label_N = manifest.frame["label"].to_numpy()[mask]
    saw = normal_logits(manifest, 2.5, 0)
    blind = (saw - 2.4 * (manifest.frame["generator"] == "janus-1").to_numpy())[mask]
    cluster = manifest.frame["source_id"].to_numpy()[mask].astype(str)
    cell = results.filter(pl.col("slice") == "trained=without mllm,tested=paradigm:mllm").row(0, named=True)
    assert cell["value"] == pytest.approx(auroc(label_N, blind))
    assert (cell["n"], cell["note"]) == (45, "held out")
    expected = paired_delong(label_N, blind, saw[mask], cluster=cluster)
    key = f"trained=without mllm,versus={EVERYTHING},tested=paradigm:mllm"
    loss = {row["metric"]: row for row in results.filter(pl.col("slice") == key).iter_rows(named=True)}
    assert loss["auroc_difference@delong"]["value"] == pytest.approx(expected.difference)
    assert loss["p@delong"]["value"] == pytest.approx(expected.p_value)
    # two losses are tested, so Holm doubles the smaller p
    others = results.filter(pl.col("metric") == "p@delong")["value"].to_list()
    assert len(others) == 2
    assert loss["p_holm@delong"]["value"] == pytest.approx(min(holm(others)))


def test_the_page_says_the_largest_loss_and_what_could_not_be_trained(
    manifest: Manifest, runs: dict[str, Path], tmp_path: Path
) -> None:
    one_kind = manifest.subset(pl.col("paradigm").is_in(["camera", "mllm"]) | (pl.col("split") == "test"))
    plan = plan_matrix(one_kind, leave_out="paradigm", only=["mllm"])
    assert [row.impossible != "" for row in plan.rows] == [False, True]
    plan = plan_matrix(manifest, leave_out="paradigm", only=["mllm"])
    page = (report_matrix(plan, runs, tmp_path / "matrix", CONFIG) / "matrix.html").read_text()
    assert "Not having seen what is tested costs AUROC in 1 of 1 cases" in page
    assert "without mllm on mllm" in page
    assert page.count("<figure>") == 2
    record = json.loads((tmp_path / "matrix" / "run.json").read_text())
    assert record["command"] == "matrix"
    assert set(record["facts"]["runs"]) == {EVERYTHING, "without mllm"}


def test_a_row_that_was_not_trained_is_not_estimable_with_its_reason(
    manifest: Manifest, runs: dict[str, Path], tmp_path: Path
) -> None:
    plan = plan_matrix(
        manifest.subset((pl.col("paradigm") != "mllm") | (pl.col("split") == "test")), leave_out="paradigm"
    )
    results = read_table(
        report_matrix(plan, {EVERYTHING: runs[EVERYTHING]}, tmp_path / "m", CONFIG) / "results.parquet", RESULT_SCHEMA
    )
    row = results.filter(pl.col("slice") == "trained=without diffusion,tested=paradigm:mllm").row(0, named=True)
    assert row["value"] is None
    assert row["note"] == "not trained: no generated image would be left in train and val"


def test_an_evaluation_is_reused_only_for_its_checkpoint_and_dataset(manifest: Manifest, tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    run = table_run(tmp_path / "run", manifest, normal_logits(manifest, 1.0, 0))
    assert not is_evaluated(run, checkpoint, manifest.digest())
    record = json.loads((run / "run.json").read_text())
    record["facts"] |= {
        "checkpoint_sha256": sha256_file(checkpoint),
        "predictions_sha256": sha256_file(run / "predictions.parquet"),
    }
    write_json(run / "run.json", record)
    assert is_evaluated(run, checkpoint, manifest.digest())
    assert not is_evaluated(run, checkpoint, "0" * 64)
    checkpoint.write_bytes(b"other weights")
    assert not is_evaluated(run, checkpoint, manifest.digest())
    assert not is_evaluated(tmp_path / "nowhere", checkpoint, manifest.digest())


def test_names_of_columns() -> None:
    assert [short_name(text) for text in ("decoder=vq", "overall", "a=b,c=d")] == ["vq", "all generators", "a=b,c=d"]
