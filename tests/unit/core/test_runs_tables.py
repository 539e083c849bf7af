from __future__ import annotations

import json
import subprocess
from pathlib import Path

import polars as pl
import pytest

from forgery_det.core.errors import ManifestError
from forgery_det.core.runs import RunRecord, git_sha
from forgery_det.core.tables import PREDICTION_SCHEMA, RESULT_SCHEMA, read_table, results_frame, write_table
from forgery_det.core.types import MetricRecord


def test_run_record_says_what_made_the_numbers(tmp_path: Path) -> None:
    record = RunRecord("evaluate", {"batch_size": 8}, 3, "ab" * 32, {"score": 1.5}, {"bad_files": []})
    stored = json.loads(record.write(tmp_path).read_text(encoding="utf-8"))
    assert stored["command"] == "evaluate"
    assert stored["config"] == {"batch_size": 8}
    assert stored["seed"] == 3
    assert stored["durations_s"] == {"score": 1.5}
    assert stored["versions"]["torch"].count(".") >= 2
    assert set(stored["hardware"]) == {"machine", "system", "cpu_count"}


def test_git_sha_is_the_commit_of_this_tree() -> None:
    sha = git_sha()
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    )
    if done.returncode:
        assert sha is None
    else:
        assert sha is None or sha.removesuffix("+dirty") == done.stdout.strip()


def test_tables_round_trip_and_refuse_other_columns(tmp_path: Path) -> None:
    records = [
        MetricRecord("auroc", "overall", 0.75, 0.7, 0.8, 12, True),
        MetricRecord("ap", "x=y", None, None, None, 0, True, "n"),
    ]
    frame = results_frame(records)
    write_table(frame, tmp_path / "results.parquet")
    assert read_table(tmp_path / "results.parquet", RESULT_SCHEMA).equals(frame)
    with pytest.raises(ManifestError, match=r"Expected the columns \['image_id', 'perturbation'"):
        read_table(tmp_path / "results.parquet", PREDICTION_SCHEMA)
    with pytest.raises(ManifestError, match="Expected a Parquet table, got nothing readable"):
        read_table(tmp_path / "absent.parquet", RESULT_SCHEMA)


def test_results_of_nothing_keep_their_columns() -> None:
    assert dict(results_frame([]).schema) == RESULT_SCHEMA
    assert results_frame([]).schema["value"] == pl.Float64
