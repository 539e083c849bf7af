"""The plan of a held-out matrix: which trainings, each without which generators, tested on what.

    leave one out      a row a generator (paradigm, decoder): trained without it; and one row trained on everything
    train on, test on  a row a filter: trained on the generators that it takes, and on no other

Real images are the same in every training and every test. A training is told by the generators that it leaves out of
`train` and `val`; `test` is never touched. Planning reads the manifest alone: what cannot be trained or tested is said
here, before anything is computed, and rows that would be the same training share one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.registry import did_you_mean
from forgery_det.core.shipped import shipped_config
from forgery_det.core.types import GENERATED
from forgery_det.evaluation.filters import Filter
from forgery_det.evaluation.slices import OVERALL

EVERYTHING = "nothing left out"
"""Row of a leave-one-out matrix that the others are held against."""

UNKNOWN = "unknown"

Level = Literal["generator", "paradigm", "decoder"]


@dataclass(frozen=True, slots=True)
class Row:
    """One training.

    Args:
        name: What the matrix calls it.
        excluded: Generators left out of `train` and `val`, sorted.
        reference: Columns for which this is the training that saw what is tested; others are held against it.
        own: The column that a leave-one-out row left out; empty for other rows.
        impossible: Why it cannot be trained; empty where it can.
    """

    name: str
    excluded: tuple[str, ...]
    reference: tuple[str, ...] = ()
    own: str = ""
    impossible: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One test: generated images of the test split that a filter takes, against all real ones."""

    name: str
    filter: Filter


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """What has to be trained and tested.

    Args:
        kind: In words, for the title.
        rows: Trainings, those that are impossible included.
        columns: Tests.
        left_out: Values with too few test images to be a column, and how many they have.
    """

    kind: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    left_out: Mapping[str, int]

    def trainings(self) -> tuple[Row, ...]:
        """Return the rows that can be trained, each training once."""
        possible = {row.excluded: row for row in reversed(self.rows) if not row.impossible}
        return tuple(row for row in self.rows if possible.get(row.excluded) is row)


def plan_matrix(
    manifest: Manifest,
    leave_out: Level | None = None,
    train_on: Sequence[str] = (),
    test_on: Sequence[str] = (),
    only: Sequence[str] = (),
    min_per_class: int = 5,
) -> MatrixPlan:
    """Plan a matrix; give either `leave_out` or `train_on`.

    Args:
        manifest: The dataset.
        leave_out: Leave out one `generator`, `paradigm` or `decoder` at a time.
        train_on: Filters, one a training (`paradigm=diffusion`).
        test_on: Filters, one a column; None takes those of `train_on`, or every value of `leave_out` in the test split.
        only: Leave out these values alone; None leaves out each value that is in training and in the test split.
        min_per_class: Fewest generated test images of a column and of a value that is left out.

    Raises:
        ConfigError: Neither or both are given, a filter or a value is unknown, or nothing is left to do.
    """
    if bool(leave_out) == bool(train_on):
        raise ConfigError("Expected either `leave_out` or `train_on`, got " + ("both." if leave_out else "neither."))
    if only and not leave_out:
        raise ConfigError("Expected `only` with `leave_out`, got it with `train_on`.")
    facts = _Facts(manifest)
    for text in (*train_on, *test_on):
        Filter.parse(text).check(manifest.frame, manifest.root.name)
    if leave_out:
        return _leave_one_out(facts, leave_out, tuple(test_on), tuple(only), min_per_class)
    columns = _columns(test_on or train_on)
    names = {column.name for column in columns}
    rows = [
        _trained_on(facts, Filter.parse(text), (text,) if text in names else ()) for text in dict.fromkeys(train_on)
    ]
    return _possible(MatrixPlan("Train on X, test on Y", tuple(rows), columns, {}))


def training_key(row: Row, words: Sequence[str], config_text: str, manifest_digest: str) -> str:
    """Return the folder name of a training; another configuration, dataset or exclusion gives another folder.

    Args:
        row: The training.
        words: Further words of `fit`.
        config_text: Content of its configuration file.
        manifest_digest: Of the dataset.

    Example:
        >>> training_key(Row("without sd/1", ("sd/1",)), [], "", "0")
        'without-sd-1-1cd4359d'
    """
    parts = [list(row.excluded), list(words), sha256_bytes(config_text.encode()), manifest_digest]
    slug = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in row.name)[:48].strip("-")
    return f"{slug}-{sha256_bytes(canonical_json(parts).encode())[:8]}"


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training of a matrix, for `fit`.

    Args:
        row: The first row that it serves.
        run: Its run folder.
        words: Arguments of `fit`.
    """

    row: Row
    run: Path
    words: tuple[str, ...]


def training_jobs(
    plan: MatrixPlan, manifest: Manifest, out: Path, fit_config: Path | None, fit_options: Mapping[str, Any]
) -> tuple[TrainingJob, ...]:
    """Return what `fit` has to be told, in order. All trainings share one folder of frozen features.

    Args:
        plan: The matrix.
        manifest: The dataset.
        out: Folder of the matrix; runs go to `runs/`, features to `features/`.
        fit_config: Configuration of `fit`; None takes that of the quickstart.
        fit_options: Further options of `fit`, such as `{"trainer.max_epochs": 10}`.

    Raises:
        ConfigError: The configuration cannot be read, or an option is one that the matrix itself sets.
    """
    taken = {"run.out", "run.features", "data.dataset", "data.exclude_generators"} & set(fit_options)
    if taken:
        raise ConfigError(f"Expected options in `fit_options` that the matrix leaves open, got {sorted(taken)}.")
    fit_config = fit_config or shipped_config("experiment/quickstart.yaml")
    try:
        config_text = Path(fit_config).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Expected a configuration of `forgery-det fit`, got none at {fit_config}.") from error
    options = [word for key, value in fit_options.items() for word in (f"--{key}", _word(value))]
    digest = manifest.digest()
    jobs = []
    for row in plan.trainings():
        run = Path(out) / "runs" / training_key(row, options, config_text, digest)
        words = ["--config", str(fit_config), *options, "--run.out", str(run), "--run.features", f"{out}/features"]
        words += ["--data.dataset", str(manifest.root)]
        words += ["--data.exclude_generators", json.dumps(row.excluded)] if row.excluded else []
        jobs.append(TrainingJob(row, run, tuple(words)))
    return tuple(jobs)


def runs_of(plan: MatrixPlan, jobs: Sequence[TrainingJob]) -> dict[str, Path]:
    """Return the run folder of every row that can be trained; rows that exclude the same generators share one."""
    folders = {job.row.excluded: job.run for job in jobs}
    return {row.name: folders[row.excluded] for row in plan.rows if row.excluded in folders}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _Facts:
    """What planning asks of a manifest."""

    def __init__(self, manifest: Manifest) -> None:
        generated = manifest.frame.filter(pl.col("label") == GENERATED)
        self.name = manifest.root.name
        self.trained = generated.filter(pl.col("split").is_in(["train", "val"]))
        self.tested = generated.filter(pl.col("split") == "test")
        if not self.tested.height:
            raise ConfigError(f"Expected generated images in the split `test`, got none ({manifest.root}).")

    def row(self, name: str, excluded: pl.DataFrame, reference: tuple[str, ...] = (), own: str = "") -> Row:
        """Return a training without the generators of `excluded`, and whether it can be done."""
        names = sorted(excluded["generator"].unique().to_list())
        kept = self.trained.filter(~pl.col("generator").is_in(names))
        missing = [split for split in ("train", "val") if not kept.filter(pl.col("split") == split).height]
        why = f"no generated image would be left in {' and '.join(missing)}" if missing else ""
        return Row(name, tuple(names), reference, own, why)


def _leave_one_out(
    facts: _Facts, level: Level, test_on: tuple[str, ...], only: tuple[str, ...], min_per_class: int
) -> MatrixPlan:
    counted = dict(sorted(facts.tested.group_by(level).len().iter_rows()))
    trained = set(facts.trained[level])
    enough = [value for value, count in counted.items() if count >= min_per_class]
    for value in only:
        if value not in trained or value not in counted:
            known = sorted(trained & set(counted))
            raise ConfigError(
                f"Expected {level}s of training and test in `only`, got {value!r}: {did_you_mean(value, known)}"
            )
    # "unknown" is no paradigm and no decoder: leaving it out would answer no question. It stays a column.
    wanted = list(only) or [
        value for value in enough if value in trained and (level == "generator" or value != UNKNOWN)
    ]
    if not wanted:
        raise ConfigError(
            f"Expected a {level} that is in training and has at least {min_per_class} test images, got none in "
            f"{facts.name}: nothing can be left out."
        )
    columns = _columns(test_on or [f"{level}={value}" for value in (only or enough)])
    everything = facts.row(EVERYTHING, facts.trained.clear(), tuple(column.name for column in columns))
    rows = [everything]
    for value in wanted:
        # A generator with any image of this value goes as a whole: its other images carry the same traces.
        holding = facts.trained.filter(pl.col(level) == value)
        rows.append(facts.row(f"without {value}", holding, own=f"{level}={value}"))
    small = {} if test_on or only else {value: count for value, count in counted.items() if value not in enough}
    return _possible(MatrixPlan(f"Leave one {level} out", tuple(rows), columns, small))


def _possible(plan: MatrixPlan) -> MatrixPlan:
    if not plan.trainings():
        reasons = "; ".join(f"{row.name}: {row.impossible}" for row in plan.rows)
        raise ConfigError(f"Expected at least one training that is possible, got none ({reasons}).")
    return plan


def _trained_on(facts: _Facts, wanted: Filter, reference: tuple[str, ...]) -> Row:
    # Only generators all of whose images the filter takes: another image of the same generator would leak its traces.
    outside = facts.trained.filter(~wanted.holds())
    return facts.row(wanted.text, outside, reference)


def _columns(texts: Sequence[str]) -> tuple[Column, ...]:
    return tuple(Column(text, Filter.parse(text)) for text in dict.fromkeys(texts))


def short_name(text: str) -> str:
    """Return a filter as a heat map shows it, without the column where that is plain.

    Example:
        >>> short_name("generator=flux-1"), short_name("paradigm=gan,decoder=vq"), short_name("overall")
        ('flux-1', 'paradigm=gan,decoder=vq', 'all generators')
    """
    if text == OVERALL:
        return "all generators"
    return text.partition("=")[2] if text.count("=") == 1 else text
