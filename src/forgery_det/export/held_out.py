"""What a run folder says about the detector: held-out results with intervals, and every reason to doubt them.

Only the run's own files are read: `run.json` says which checkpoint was judged, `results.parquet` has the numbers, and
`report.md` the reasons in plain words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.core.runs import RUN_NAME
from forgery_det.core.tables import RESULT_SCHEMA, RESULTS_NAME, read_table

METRICS = (
    "auroc", "average_precision", "balanced_accuracy@balanced", "tpr@fpr_1pct", "fpr@fpr_1pct", "tpr@fpr_5pct",
    "fpr@fpr_5pct", "ece",
)  # fmt: skip
"""Metrics that a model card shows, where the run has them."""

_GROUPS = ("overall", "exposure=", "paradigm=", "decoder=", "prompt_words=")
_CAVEAT = re.compile(r"^- (?:\?|\*\*!\*\*) (.+)$")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a run says.

    Args:
        split: That was judged.
        dataset: Its name.
        results: `{metric, slice, value, ci_low, ci_high, n, note}`, the slices of a model card.
        caveats: Reasons to doubt, in plain words, the most serious first.
        n_failed: Files that could not be scored.
    """

    split: str
    dataset: str
    results: tuple[Mapping[str, Any], ...]
    caveats: tuple[str, ...]
    n_failed: int


def find_run(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in (`RUN/checkpoints/best.ckpt`), if it holds results."""
    folder = checkpoint.resolve().parent.parent
    return folder if (folder / RESULTS_NAME).is_file() and (folder / RUN_NAME).is_file() else None


def read_held_out(run: Path, checkpoint_sha256: str) -> HeldOut:
    """Read a run folder.

    Args:
        run: Folder that `forgery-det evaluate` wrote.
        checkpoint_sha256: Of the checkpoint that is exported.

    Raises:
        ConfigError: It is no such folder, or the run judged another checkpoint.
        ManifestError: The results are unreadable.
    """
    path = run / RUN_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        facts, config = record["facts"], record["config"]
        judged, split = facts["checkpoint_sha256"], config["split"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Expected the folder of an evaluation, got {type(error).__name__}: {error} ({path})."
        ) from error
    if judged != checkpoint_sha256:
        raise ConfigError(
            f"Expected a run of this checkpoint (sha256 {checkpoint_sha256[:12]}), got one of {judged[:12]} ({path}). "
            "Evaluate this checkpoint first, or give its run."
        )
    results = read_table(run / RESULTS_NAME, RESULT_SCHEMA).filter(
        pl.col("metric").is_in(list(METRICS)),
        pl.any_horizontal(pl.col("slice").str.starts_with(group) for group in _GROUPS),
        ~pl.col("slice").str.contains(",", literal=True),
    )
    columns = ["metric", "slice", "value", "ci_low", "ci_high", "n", "note"]
    return HeldOut(
        split=split,
        dataset=Path(config["dataset"]).name,
        results=tuple(results.select(columns).iter_rows(named=True)),
        caveats=_caveats(run / "report.md"),
        n_failed=int(facts.get("n_bad_files", 0)),
    )


def _caveats(report: Path) -> tuple[str, ...]:
    """Return the doubts and problems at the top of a Markdown report, unescaped; empty where there is none."""
    if not report.is_file():
        return ()
    summary = report.read_text(encoding="utf-8").split("\n## ", 1)[0]
    found = (_CAVEAT.match(line) for line in summary.splitlines())
    return tuple(_ESCAPED.sub(r"\1", match[1]) for match in found if match)
