"""What `--wandb` leaves behind is read back from the offline run itself."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forgery_det.cli import main
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.tables import RESULT_SCHEMA, read_table, results_frame
from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.wandb_log import log_run, summary_values
from synth.runs import normal_logits, table_dataset, table_run


def test_the_summary_is_the_overall_slice() -> None:
    records = [
        MetricRecord("auroc", "overall", 0.9, 0.8, 0.95, 40, True),
        MetricRecord("ece", "overall", 0.1, None, None, 40, False),
        MetricRecord("eer", "overall", None, None, None, 0, False, note="not estimable"),
        MetricRecord("auroc", "paradigm=mllm", 0.7, 0.6, 0.8, 20, True),
    ]
    assert summary_values(results_frame(records)) == {
        "auroc": 0.9, "auroc_ci_low": 0.8, "auroc_ci_high": 0.95, "ece": 0.1,
    }  # fmt: skip
    assert summary_values(results_frame(records[3:]))["auroc/paradigm=mllm"] == 0.7


def test_only_a_finished_run_is_logged(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no readable run\.json"):
        log_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ConfigError, match="Expected a run record"):
        log_run(tmp_path)
    assert not (tmp_path / "wandb").exists()


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a `.wandb` file: LevelDB's log format behind a header of seven bytes.

    Blocks of 32 KiB; each piece is crc32 (4), length (2), kind (1: whole, 2: first, 3: middle, 4: last), bytes.
    """
    position, pending = 7, b""
    while position + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, position + 4)
        pending += data[position + 7 : position + 7 + length]
        if kind in (1, 4):
            yield pending
            pending = b""
        position += 7 + length
        left = 32768 - position % 32768
        position += left if left < 7 else 0


def logged_in(folder: Path) -> tuple[str, dict[str, Any], set[str]]:
    """Project, summary and the files of the artefacts of an offline run."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its service writes the last block when it ends, which it else does with the process
    (path,) = folder.glob("*.wandb")
    project, summary, files = "", dict[str, Any](), set[str]()
    for data in log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            project = record.run.project
        for item in record.summary.update:
            summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        artifact = record.artifact if record.HasField("artifact") else record.request.log_artifact.artifact
        files |= {entry.path for entry in artifact.manifest.contents}
    return project, summary, files


@pytest.mark.slow
def test_a_comparison_lies_whole_in_the_offline_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = table_dataset(tmp_path / "photos", 60, 60)
    runs = [
        str(table_run(tmp_path / name, manifest, normal_logits(manifest, strength, seed), checkpoint=name))
        for seed, (name, strength) in enumerate((("weak", 1.0), ("strong", 2.0)))
    ]
    out = tmp_path / "out"
    assert (
        main(["compare", *runs, "--out", str(out), "--n_replicates", "50", "--wandb", "--wandb_project", "mine"]) == 0
    )
    results = read_table(out / "results.parquet", RESULT_SCHEMA)
    (folder,) = (out / "wandb").glob("offline-run-*")
    assert f"wandb: {folder}" in capsys.readouterr().out

    project, summary, artifacts = logged_in(folder)
    assert project == "mine"
    for row in results.filter(results["value"].is_not_null()).head(5).iter_rows(named=True):
        assert summary[f"{row['metric']}/{row['slice']}"] == pytest.approx(row["value"])
    figures = {f"figures/{one.name}" for one in (out / "figures").glob("*.svg")}
    assert {"results.parquet", "run.json", "compare.html", "compare.md"} | figures <= artifacts
    (table,) = (folder / "files" / "media" / "table").glob("*.json")
    shown = json.loads(table.read_text())
    assert shown["columns"] == results.columns
    assert len(shown["data"]) == results.height
    pages = [one.read_text() for one in (folder / "files" / "media" / "html").rglob("*.html")]
    assert sorted(pages) == sorted(one.read_text() for one in (out / "figures").glob("*.svg"))


@pytest.mark.slow
def test_an_evaluation_heads_its_run_with_the_overall_values(
    manifest: Manifest, make_loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["forgery_det.evaluation.evaluate"], "load_checkpoint", lambda _: make_loaded())
    (tmp_path / "best.ckpt").write_bytes(b"stands for the weights")
    words = [str(tmp_path / "best.ckpt"), str(manifest.root), "--out", str(tmp_path / "run"), "--n_replicates", "20"]
    assert main(["evaluate", *words, "--device", "cpu", "--protocols", "{}", "--wandb"]) == 0
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    project, summary, files = logged_in(folder)
    results = read_table(tmp_path / "run" / "results.parquet", RESULT_SCHEMA)
    auroc = results.row(by_predicate=(pl.col("metric") == "auroc") & (pl.col("slice") == "overall"), named=True)
    assert project == "forgery-det"
    assert summary["auroc"] == pytest.approx(auroc["value"])
    assert {"report.html", "report.md", "results.parquet", "run.json"} <= files
    # The run folder stays one that can be evaluated again.
    assert main(["evaluate", *words, "--device", "cpu", "--protocols", "{}"]) == 0
