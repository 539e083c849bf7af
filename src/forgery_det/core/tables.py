"""Reading and writing the tables of a run folder: `predictions.parquet` and `results.parquet`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import polars as pl

from forgery_det.core.artefacts import atomic_path
from forgery_det.core.errors import ManifestError
from forgery_det.core.types import MetricRecord

PREDICTIONS_NAME = "predictions.parquet"
RESULTS_NAME = "results.parquet"

PREDICTION_SCHEMA: dict[str, pl.DataType] = {
    "image_id": pl.String(),
    "perturbation": pl.String(),
    "severity": pl.Int64(),
    "logit": pl.Float64(),
    "score": pl.Float64(),
}
RESULT_SCHEMA: dict[str, pl.DataType] = {
    "metric": pl.String(),
    "slice": pl.String(),
    "value": pl.Float64(),
    "ci_low": pl.Float64(),
    "ci_high": pl.Float64(),
    "n": pl.Int64(),
    "higher_is_better": pl.Boolean(),
    "note": pl.String(),
}


def results_frame(records: Iterable[MetricRecord]) -> pl.DataFrame:
    """Return the records as a table with the columns of `RESULT_SCHEMA`.

    Example:
        >>> results_frame([MetricRecord("auroc", "overall", 0.9, 0.8, 0.95, 40, True)]).shape
        (1, 8)
    """
    return pl.DataFrame([asdict(record) for record in records], schema=RESULT_SCHEMA)


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically and with equal bytes for equal tables."""
    with atomic_path(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)


def read_table(path: Path, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Read a Parquet table and check its columns.

    Raises:
        ManifestError: The file is missing, is not Parquet, or has other columns or types.
    """
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ManifestError(f"Expected a Parquet table, got nothing readable at {path}: {error}") from error
    if dict(frame.schema) != schema:
        raise ManifestError(f"Expected the columns {list(schema)}, got {dict(frame.schema)} ({path}).")
    return frame
