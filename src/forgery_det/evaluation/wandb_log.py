"""A finished run folder as a run of Weights & Biases: what `evaluate`, `compare` and `matrix` wrote, and nothing else.

    results.parquet -> a table, and its overall values as summary     figures/*.svg -> pictures
    report or page, results, run.json -> one artefact                 run.json      -> the run's configuration

Everything is read from the folder, so a run can be logged long after it was made. Offline unless asked otherwise: the
wandb run lies in `<run>/wandb` until `wandb sync` sends it. Its id comes from the folder's results, so what is logged
twice is one run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.runs import RUN_NAME
from forgery_det.core.tables import RESULT_SCHEMA, RESULTS_NAME, read_table

if TYPE_CHECKING:
    # Only for types: importing wandb takes a second, which nobody should pay who does not log.
    import wandb

_PAGES = ("report", "compare", "matrix")
_OVERALL = "overall"


def log_run(run: Path, project: str = "forgery-det", mode: Literal["offline", "online"] = "offline") -> Path:
    """Log a finished run folder.

    Args:
        run: Folder with `run.json` and `results.parquet`.
        project: Project at wandb.
        mode: `offline` keeps the run on this machine, `online` sends it (and needs a key or a login).

    Returns:
        Folder of the wandb run, below `<run>/wandb`.

    Raises:
        ConfigError: The folder holds no finished run.
        ManifestError: `results.parquet` is not what we write.
    """
    run = Path(run)
    record = _record(run)
    results = read_table(run / RESULTS_NAME, RESULT_SCHEMA)
    import wandb

    logged = wandb.init(
        project=project,
        mode=mode,
        id=sha256_file(run / RESULTS_NAME)[:16],
        name=run.resolve().name,
        job_type=str(record["command"]),
        dir=str(run),
        config=dict(record["config"]) | {"versions": record.get("versions"), "git_sha": record.get("git_sha")},
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
    )
    try:
        logged.log({"results": _table(results), **_figures(run)})
        logged.summary.update(summary_values(results))
        logged.log_artifact(_artifact(run, logged.id))
        return Path(logged.dir).parent
    finally:
        logged.finish()


def summary_values(results: pl.DataFrame) -> dict[str, float]:
    """Return the values that head a run at wandb: those of the slice `overall`, or of all where none is called so.

    Args:
        results: Columns of `RESULT_SCHEMA`.

    Returns:
        `metric` (or `metric/slice`) -> value, and `..._ci_low`, `..._ci_high` where there is an interval.

    Example:
        >>> from forgery_det.core.tables import results_frame
        >>> from forgery_det.core.types import MetricRecord
        >>> summary_values(results_frame([MetricRecord("auroc", "overall", 0.9, 0.8, 0.95, 40, True)]))
        {'auroc': 0.9, 'auroc_ci_low': 0.8, 'auroc_ci_high': 0.95}
    """
    overall = results.filter(pl.col("slice") == _OVERALL)
    chosen = overall if overall.height else results
    values: dict[str, float] = {}
    for row in chosen.filter(pl.col("value").is_not_null() & pl.col("value").is_not_nan()).iter_rows(named=True):
        name = row["metric"] if overall.height else f"{row['metric']}/{row['slice']}"
        values[name] = row["value"]
        values |= {f"{name}_{end}": row[end] for end in ("ci_low", "ci_high") if row[end] is not None}
    return values


def _record(run: Path) -> Mapping[str, Any]:
    try:
        record = json.loads((run / RUN_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a finished run to log, got no readable {RUN_NAME} in {run}: {error}") from error
    if not isinstance(record, dict) or not {"command", "config"} <= set(record):
        raise ConfigError(f"Expected a run record, got something else in {run / RUN_NAME}.")
    return record


def _table(results: pl.DataFrame) -> wandb.Table:
    import wandb

    return wandb.Table(
        columns=[*results.columns], data=[list(row) for row in results.iter_rows()], allow_mixed_types=True
    )


def _figures(run: Path) -> dict[str, wandb.Html]:
    import wandb

    # Our figures are SVG, which wandb shows as HTML; its pictures are pixels.
    paths = sorted((run / "figures").glob("*.svg"))
    return {f"figures/{path.stem}": wandb.Html(path.read_text(encoding="utf-8"), inject=False) for path in paths}


def _artifact(run: Path, run_id: str) -> wandb.Artifact:
    import wandb

    artifact = wandb.Artifact(f"report-{run_id}", type="report")
    pages = [run / f"{name}{suffix}" for name in _PAGES for suffix in (".html", ".md")]
    for path in (run / RUN_NAME, run / RESULTS_NAME, *pages, *sorted((run / "figures").glob("*.svg"))):
        if path.is_file():
            artifact.add_file(str(path), name=path.relative_to(run).as_posix())
    return artifact
