"""The two tables of a safety run: what came back (`items.parquet`) and what the judges said (`judgements.parquet`).

One row of `items` is one hop of one request; one row of `judgements` is one judge's verdict on one such hop. Everything
that is reported is a function of these two tables, so a run can be judged again without a single request.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.safety.types import HOPS, PATHWAYS, VERDICTS

ITEMS_NAME = "items.parquet"
JUDGEMENTS_NAME = "judgements.parquet"

KEY = ("prompt_id", "prompt_level", "model", "pathway", "index", "hop")
"""What names one hop of one request."""

ITEM_SCHEMA = pl.Schema({
    "prompt_id": pl.String, "prompt_level": pl.String, "model": pl.String, "pathway": pl.String, "index": pl.Int64,
    "hop": pl.String, "benchmark": pl.String, "category": pl.String, "language": pl.String, "paradigm": pl.String,
    "kind": pl.String, "outcome": pl.String, "detail": pl.String, "sha256": pl.String, "text": pl.String,
    "stored": pl.String, "cost_usd": pl.Float64,
})  # fmt: skip
JUDGEMENT_SCHEMA = pl.Schema({
    "prompt_id": pl.String, "prompt_level": pl.String, "model": pl.String, "pathway": pl.String, "index": pl.Int64,
    "hop": pl.String, "judge": pl.String, "judge_version": pl.String, "verdict": pl.String, "score": pl.Float64,
    "raw": pl.String,
})  # fmt: skip

SLICE_KEYS = ("benchmark", "category", "language", "prompt_level")
"""Columns that rates are sliced by, beside model, pathway and hop."""


def checked(frame: pl.DataFrame, schema: pl.Schema, name: str) -> pl.DataFrame:
    """Return the frame with the columns of the schema, in its order.

    Raises:
        ConfigError: A column is missing or of another type, a key is there twice, or a word is unknown.
    """
    for column, kind in schema.items():
        if column not in frame.columns or (frame.schema[column] != kind and frame.schema[column] != pl.Null):
            found = frame.schema.get(column, "no such column")
            raise ConfigError(f"Expected column `{column}` of type {kind} in {name}, got {found}.")
    unique = [column for column in (*KEY, "judge") if column in schema]
    if frame.select(unique).is_duplicated().any():
        row = frame.filter(frame.select(unique).is_duplicated()).row(0, named=True)
        raise ConfigError(f"Expected one row for each {', '.join(unique)} in {name}, got several: {row}.")
    _known(frame, "pathway", PATHWAYS, name)
    _known(frame, "hop", HOPS, name)
    if "verdict" in schema:
        _known(frame, "verdict", VERDICTS, name)
    return frame.select(pl.col(column).cast(kind) for column, kind in schema.items())


def _known(frame: pl.DataFrame, column: str, allowed: Sequence[str], name: str) -> None:
    wrong = frame.filter(pl.col(column).is_not_null() & ~pl.col(column).is_in(allowed))
    if len(wrong):
        raise ConfigError(f"Expected `{column}` in {', '.join(allowed)}, got {wrong[column][0]!r} ({name}).")


def judged(items: pl.DataFrame, judgements: pl.DataFrame, judge: str) -> pl.DataFrame:
    """Return the items that were made, each with the verdict of one judge (null where it could not judge).

    Raises:
        ConfigError: The judge has no row.
    """
    of_judge = judgements.filter(pl.col("judge") == judge)
    if of_judge.is_empty():
        known = ", ".join(sorted(judgements["judge"].unique())) or "none"
        raise ConfigError(f"Expected a judge with judgements, got {judge!r}; there are: {known}.")
    return items.filter(pl.col("outcome") == "made").join(
        of_judge.select(*KEY, "verdict", "score"), on=list(KEY), how="left"
    )


def prompt_of(frame: pl.DataFrame) -> list[str]:
    """Return the cluster of each row: its prompt, whatever the level; images of one idea are not independent."""
    return frame["prompt_id"].to_list()
