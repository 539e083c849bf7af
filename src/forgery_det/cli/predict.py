"""`forgery-det predict`: a row for every file, whatever the file is like."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.checkpoint import load_checkpoint
from forgery_det.evaluation import PredictionRow, expand_paths, format_rows
from forgery_det.evaluation import predict as run_predict
from forgery_det.evaluation.predict import DEFAULT_POINT, operating_threshold


def predict(
    model: Path,
    paths: list[str],
    format: Literal["table", "csv", "jsonl"] = "table",  # noqa: A002 - the option's name in the design
    operating_point: str = DEFAULT_POINT,
    batch_size: int = 16,
    device: str = "auto",
) -> int:
    """Score images; exit code 1 when a file could not be scored.

    Args:
        model: checkpoint (.ckpt)
        paths: files, folders and globs; `-` reads one path a line from standard input
        format: columns path, logit, score, decision, error as a table, CSV or JSON lines
        operating_point: whose threshold decides: fpr_1pct, fpr_5pct or balanced
        batch_size: images a forward pass
        device: auto, cpu or cuda
    """
    if not paths:
        raise ConfigError("Expected files, folders, globs or `-` for standard input, got nothing to score.")
    loaded = load_checkpoint(model)
    threshold = operating_threshold(loaded.facts, operating_point)
    decides = (
        "no decision: the checkpoint has no operating points"
        if threshold is None
        else (f"decision `generated` at logit >= {threshold:.4f} ({operating_point}, fitted on val)")
    )
    # Standard error, so that CSV and JSON lines stay clean; label convention and threshold belong to every answer.
    print(f"label 1 = generated, 0 = real; higher logit = generated; {decides}", file=sys.stderr)
    skipped: list[str] = []
    names = expand_paths(_words(paths), skipped.append)
    rows = run_predict(loaded, names, operating_point=operating_point, batch_size=batch_size, device=device)
    failures: list[PredictionRow] = []
    for line in format_rows(_watched(rows, failures), format):
        print(line, end="" if line.endswith("\n") else "\n")
    if skipped:
        print(f"{len(skipped)} files in folders were left out: no image suffix (first: {skipped[0]})", file=sys.stderr)
    if failures:
        print(f"{len(failures)} files could not be scored; see their `error`.", file=sys.stderr)
    return 1 if failures else 0


def _words(paths: list[str]) -> Iterator[str]:
    for path in paths:
        if path == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield path


def _watched(rows: Iterable[PredictionRow], failures: list[PredictionRow]) -> Iterator[PredictionRow]:
    for row in rows:
        if row.error:
            failures.append(row)
        yield row
