"""`compare`: run folders in, a leaderboard with significance groups out.

    runs -> datasets (by manifest) -> images that all scored -> AUROC and pairwise tests -> Holm -> letters -> page

Runs on one dataset are compared on the very same images. Several datasets are kept apart, because a mean of AUROCs over
datasets says nothing; with at least three detectors on at least two of them, mean ranks are compared (`metrics.ranks`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.core.registry import did_you_mean
from forgery_det.core.runs import RUN_NAME, RunRecord
from forgery_det.core.tables import RESULTS_NAME, results_frame, write_table
from forgery_det.evaluation.compare_board import Findings, compare_tables
from forgery_det.evaluation.compare_page import compare_page
from forgery_det.evaluation.compare_read import RunTable, check_out, read_runs
from forgery_det.evaluation.compare_records import compare_records
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.evaluation.slices import OVERALL
from forgery_det.evaluation.thresholds import OPERATING_POINTS
from forgery_det.metrics.inputs import check_open_fraction
from forgery_det.reporting.page import write_page

COMMAND = "compare"
STEM = "compare"
"""File stem of the pages."""


def compare(
    runs: Sequence[Path],
    out: Path,
    *,
    names: Sequence[str] | None = None,
    datasets: Sequence[Path] = (),
    images: str = OVERALL,
    operating_point: str = "fpr_5pct",
    alpha: float = 0.05,
    n_replicates: int = 1000,
    seed: int = 0,
    min_per_class: int = 5,
    progress: ProgressSink = silent,
) -> Path:
    """Compare evaluations and write `compare.html`, `compare.md`, `results.parquet`, `figures/` and `run.json`.

    Args:
        runs: Run folders of `evaluate`, at least two.
        out: Folder of the comparison.
        names: One a run, see `read_runs`.
        datasets: Where datasets lie now, if they were moved.
        images: Which generated images: a filter (`paradigm=mllm`), `overall`, or `exposure=held_out` for those whose
            generator none of the detectors was trained on. Real images are always all there.
        operating_point: Whose decisions are compared.
        alpha: Level of all tests together.
        n_replicates: Bootstrap replicates.
        seed: Of the bootstrap.
        min_per_class: Fewest images of a class for a metric or a test.
        progress: Told after each dataset.

    Returns:
        The folder.

    Raises:
        ConfigError: Runs that cannot be compared, or an option out of range.
    """
    started = time.monotonic()
    if operating_point not in OPERATING_POINTS:
        raise ConfigError(
            f"Unknown operating point {operating_point!r}: {did_you_mean(operating_point, OPERATING_POINTS)}"
        )
    check_open_fraction(alpha, "alpha")
    check_out(Path(out), COMMAND)
    tables = read_runs(runs, names, datasets)
    config = {
        "runs": [str(run) for run in runs], "names": [table.name for table in tables],
        "datasets": [str(folder) for folder in datasets], "images": images, "operating_point": operating_point,
        "alpha": alpha, "n_replicates": n_replicates, "seed": seed, "min_per_class": min_per_class, "out": str(out),
    }  # fmt: skip
    findings = compare_tables(tables, config, Statistics(n_replicates, seed, min_per_class), progress)
    _write(findings, tables, Path(out), time.monotonic() - started)
    return Path(out)


def _write(findings: Findings, tables: Sequence[RunTable], out: Path, seconds: float) -> None:
    (out / RUN_NAME).unlink(missing_ok=True)
    write_table(results_frame(compare_records(findings)), out / RESULTS_NAME)
    write_page(compare_page(findings), out, STEM)
    facts = {
        "manifests": sorted({table.manifest_hash for table in tables}),
        "boards": [
            {
                "dataset": board.dataset,
                "standings": [{"detector": line.name, "groups": line.letters} for line in board.standings],
            }
            for board in findings.boards
        ],
        "results_sha256": sha256_file(out / RESULTS_NAME),
    }
    RunRecord(COMMAND, findings.config, findings.config["seed"], None, {"compare": round(seconds, 3)}, facts).write(out)
