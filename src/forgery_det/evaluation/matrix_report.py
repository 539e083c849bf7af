"""From the evaluated trainings of a held-out matrix to its folder: `results.parquet`, `matrix.html`, `matrix.md`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.runs import RUN_NAME, RunRecord
from forgery_det.core.tables import RESULTS_NAME, results_frame, write_table
from forgery_det.evaluation.compare_read import check_out, read_run
from forgery_det.evaluation.matrix import MatrixPlan
from forgery_det.evaluation.matrix_page import matrix_page, matrix_records
from forgery_det.evaluation.matrix_values import MatrixFindings, measure
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.reporting.page import write_page

COMMAND = "matrix"
STEM = "matrix"
"""File stem of the pages."""


def report_matrix(plan: MatrixPlan, runs: Mapping[str, Path], out: Path, config: Mapping[str, Any]) -> Path:
    """Measure a matrix and write its folder; `run.json` comes last.

    Args:
        plan: What was to be trained and tested.
        runs: Name of each row that was trained -> its run folder, evaluated.
        out: Folder of the matrix.
        config: Resolved configuration, with `alpha`, `n_replicates`, `seed`, `min_per_class`.

    Raises:
        ConfigError: `out` holds another run, or a run folder holds no evaluation.
    """
    started = time.monotonic()
    check_out(Path(out), COMMAND)
    tables = {name: read_run(run, name) for name, run in runs.items()}
    first = next(iter(tables.values()))
    statistics = Statistics(config["n_replicates"], config["seed"], config["min_per_class"])
    cells, contrasts = measure(plan, tables, statistics)
    findings = MatrixFindings(plan, first.dataset, first.detector, cells, contrasts, config)
    (Path(out) / RUN_NAME).unlink(missing_ok=True)
    write_table(results_frame(matrix_records(findings)), Path(out) / RESULTS_NAME)
    write_page(matrix_page(findings), Path(out), STEM)
    facts = {
        "runs": {name: str(run) for name, run in runs.items()},
        "impossible": {row.name: row.impossible for row in plan.rows if row.impossible},
        "results_sha256": sha256_file(Path(out) / RESULTS_NAME),
    }
    seconds = {"report": round(time.monotonic() - started, 3)}
    RunRecord(COMMAND, dict(config), config["seed"], first.manifest_hash, seconds, facts).write(Path(out))
    return Path(out)
