"""`forgery-det predict`: a row for every file, whatever the file is like, from a checkpoint or a bundle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from forgery_det.cli.display import shown_progress
from forgery_det.cli.scoring import Scoring, ScoringOptions, open_scorer, open_scoring
from forgery_det.core.errors import ConfigError
from forgery_det.core.image_paths import expand_paths
from forgery_det.core.prediction_rows import PredictionRow, format_rows
from forgery_det.core.progress import Progress
from forgery_det.core.row_file import RowFile, RowFileSpec
from forgery_det.serving.bundle import is_bundle

_STYLE_OF_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def predict(
    model: Path,
    paths: list[str],
    format: Literal["table", "csv", "jsonl"] | None = None,  # noqa: A002 - the option's name in the design
    out: Path | None = None,
    operating_point: str | None = None,
    batch_size: int = 16,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    model_format: str | None = None,
    public_key: Path | None = None,
    executor: Literal["local", "ray"] = "local",
    workers: int = 2,
) -> int:
    """Score images; exit code 1 when a file could not be scored.

    Args:
        model: checkpoint (.ckpt) or folder of a bundle
        paths: files, folders and globs; `-` reads one path a line from standard input
        format: columns path, logit, score, decision, error (a bundle adds warnings) as a table, CSV or JSON lines
        out: CSV or JSON lines file to write; the same command goes on where it was interrupted
        operating_point: whose threshold decides: fpr_1pct, fpr_5pct or balanced; without it fpr_5pct, or the bundle's
        batch_size: images a forward pass
        device: auto, cpu or cuda; auto is the processor for a bundle
        threads: processor threads of a bundle's runtime, of each worker with ray; without it all, or 1 with ray
        model_format: format of a bundle: onnx, onnx_int8 or openvino; without it the bundle's default
        public_key: Ed25519 public key; the bundle must then be signed
        executor: local, or ray for a cluster (RAY_ADDRESS; without it ray is started here)
        workers: processes of ray
    """
    if not paths:
        raise ConfigError("Expected files, folders, globs or `-` for standard input, got nothing to score.")
    options = ScoringOptions(model, operating_point, batch_size, device, threads, model_format, public_key)
    style = _style(format, out)
    scoring = open_scoring(options)
    # Standard error, so that CSV and JSON lines stay clean; label convention and threshold belong to every answer.
    print(f"label 1 = generated, 0 = real; higher logit = generated; {_rule(scoring)}", file=sys.stderr)
    tally = _Tally()
    names = expand_paths(_words(paths), tally.skip)
    if out is None:
        rows = _rows(scoring, options, names, workers if executor == "ray" else None)
        for line in format_rows(tally.watch(rows), style, scoring.columns):
            print(line)
    else:
        spec = RowFileSpec(out, style, scoring.columns, batch_size, _settings(scoring, paths))
        with RowFile(spec) as file, shown_progress() as progress:
            if not file.finished:
                rows = _rows(scoring, options, file.remaining(names), workers if executor == "ray" else None)
                for _ in file.write(rows):
                    progress(Progress("scoring", file.n_rows, None))
                file.finish()
        tally.n_failed = file.n_failed
        print(f"{out}: {file.n_rows} rows", file=sys.stderr)
    tally.tell()
    return 1 if tally.n_failed else 0


def _style(style: str | None, out: Path | None) -> str:
    """Return the style asked for; without one a file's suffix tells it, and standard output gets a table."""
    if style is not None or out is None:
        return style or "table"
    if out.suffix.lower() not in _STYLE_OF_SUFFIX:
        raise ConfigError(f"Expected --format csv or jsonl, or an --out that ends in .csv or .jsonl, got {out}.")
    return _STYLE_OF_SUFFIX[out.suffix.lower()]


def _rule(scoring: Scoring) -> str:
    if scoring.threshold is None:
        return "no decision: the model has no operating points"
    return f"decision `generated` at logit >= {scoring.threshold:.4f} ({scoring.operating_point}, fitted on val)"


def _settings(scoring: Scoring, paths: list[str]) -> dict[str, object]:
    """Return what decides the rows of a file: the model by its bytes, the operating point, the names of the files."""
    chosen = {"operating_point": scoring.operating_point, "threshold": scoring.threshold, "paths": paths}
    return {**scoring.identity, **chosen}


def _rows(
    scoring: Scoring, options: ScoringOptions, names: Iterator[str], workers: int | None
) -> Iterator[PredictionRow]:
    """Yield the rows, from this process or from the workers of a cluster."""
    if workers is None:
        return scoring.rows(names)
    from forgery_det.serving.cluster import ray_rows

    each = replace(options, threads=options.threads or 1) if is_bundle(options.model) else options
    return ray_rows(
        partial(open_scorer, each), names, batch_size=options.batch_size, workers=workers, threads=each.threads or 1
    )


def _words(paths: list[str]) -> Iterator[str]:
    for path in paths:
        if path == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield path


class _Tally:
    """Counts what went wrong; keeps no names but the first, because there may be millions."""

    def __init__(self) -> None:
        self.n_failed = 0
        self.n_skipped = 0
        self.first_skipped = ""

    def skip(self, path: str) -> None:
        """Count a file that a folder search left out."""
        self.first_skipped = self.first_skipped or path
        self.n_skipped += 1

    def watch(self, rows: Iterator[PredictionRow]) -> Iterator[PredictionRow]:
        """Pass the rows on, counting those with an error."""
        for row in rows:
            self.n_failed += row.error is not None
            yield row

    def tell(self) -> None:
        """Say on standard error what was left out and what failed."""
        if self.n_skipped:
            print(
                f"{self.n_skipped} files in folders were left out: no image suffix (first: {self.first_skipped})",
                file=sys.stderr,
            )
        if self.n_failed:
            print(f"{self.n_failed} files could not be scored; see their `error`.", file=sys.stderr)
