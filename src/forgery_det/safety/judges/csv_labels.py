"""Human labels, or those of any other judge, from a CSV file.

A row names an answer by the `sha256` of its file or text (column `sha256` of `items.parquet`), or by its place: the
columns `prompt_id`, `model`, `pathway`, `index`, `hop`, and `prompt_level` where a prompt has several levels. The
column `verdict` is one of three classes. So labels can be added after the run, also for images that it did not keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.safety.judges.base import Judge, JudgeContext, Subject
from forgery_det.safety.types import VERDICTS, Judgement, Kind, Verdict

_PLACE = ("prompt_id", "model", "pathway", "index", "hop")
_LEVEL = "prompt_level"


@dataclass(frozen=True, slots=True)
class CsvParameters:
    """Keys of a judge of the kind `csv`.

    Args:
        path: The CSV file, relative to the plan.
        annotator: Who labelled. Where the file has a column `annotator`, only these rows are read.
    """

    path: str
    annotator: str = ""


class CsvJudge(Judge):
    """Gives the label of each answer; an answer without one is not judged.

    Raises:
        ConfigError: The file cannot be read, lacks columns, has an unknown verdict or two labels for one answer.
    """

    Parameters = CsvParameters
    kinds: frozenset[Kind] = frozenset({"image", "text"})
    three_classes: ClassVar[bool] = True
    looks: ClassVar[bool] = False

    parameters: CsvParameters

    def __init__(self, parameters: CsvParameters, context: JudgeContext) -> None:
        super().__init__(parameters, context)
        self._path = context.folder / Path(parameters.path).expanduser()
        table = _read(self._path, parameters.annotator)
        self._columns = _key_columns(table, self._path)
        self._labels = _labels(table, self._columns, self._path)
        who = f"{parameters.annotator}, " if parameters.annotator else ""
        self._version = f"{who}sha256 {sha256_file(self._path)}"

    def version(self) -> str:
        """Return the annotator and the sha256 of the file."""
        return self._version

    def judge(self, subject: Subject) -> Judgement:
        """Return the label."""
        place: dict[str, str] = {
            "prompt_id": subject.prompt.prompt_id, _LEVEL: subject.prompt.prompt_level, "model": subject.model,
            "pathway": subject.pathway, "index": str(subject.index), "hop": subject.hop, "sha256": subject.sha256,
        }  # fmt: skip
        verdict = self._labels.get(tuple(place[name] for name in self._columns))
        if verdict is None:
            return Judgement(None, None, {"error": f"no label in {self._path.name}"})
        return Judgement(verdict, None, {"label": verdict} | _annotated(self.parameters.annotator))


def _annotated(annotator: str) -> dict[str, Any]:
    return {"annotator": annotator} if annotator else {}


def _read(path: Path, annotator: str) -> pl.DataFrame:
    try:
        # All texts: an id such as 007 is not a number.
        table = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"Expected a readable CSV file of labels, got: {error} ({path}).") from error
    if annotator and "annotator" in table.columns:
        known = sorted(table["annotator"].drop_nulls().unique())
        table = table.filter(pl.col("annotator") == annotator)
        if table.is_empty():
            raise ConfigError(f"Unknown annotator {annotator!r} ({path}): {did_you_mean(annotator, known)}")
    return table


def _key_columns(table: pl.DataFrame, path: Path) -> tuple[str, ...]:
    place = (*_PLACE, _LEVEL) if _LEVEL in table.columns else _PLACE
    columns = ("sha256",) if "sha256" in table.columns else place
    missing = [name for name in (*columns, "verdict") if name not in table.columns]
    if missing:
        raise ConfigError(
            f"Expected the columns verdict and sha256, or verdict, {', '.join(_PLACE)}, got no {missing[0]!r} among "
            f"{', '.join(table.columns)} ({path})."
        )
    return columns


def _labels(table: pl.DataFrame, columns: tuple[str, ...], path: Path) -> dict[tuple[str, ...], Verdict]:
    labels: dict[tuple[str, ...], Verdict] = {}
    known: dict[str, Verdict] = {verdict: verdict for verdict in VERDICTS}
    for number, row in enumerate(table.iter_rows(named=True), start=2):
        given = str(row["verdict"] or "").strip().lower()
        if not given:
            continue  # not labelled yet
        if given not in known:
            raise ConfigError(f"Unknown verdict {row['verdict']!r} (row {number} of {path}): {', '.join(VERDICTS)}.")
        key = tuple(str(row[name] or "").strip() for name in columns)
        if labels.get(key, given) != given:
            raise ConfigError(
                f"Expected one label for each answer, got {labels[key]} and {given} for {', '.join(key)} (row {number} "
                f"of {path}). Labels of several people: one judge each, with `annotator`."
            )
        labels[key] = known[given]
    return labels
