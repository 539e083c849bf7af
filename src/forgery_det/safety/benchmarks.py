"""Benchmark sets by name: `prompts: {benchmark_set: i2p}` reads a set from where it lives, or from the user's download.

`benchmarks.yaml` says where each set lives and how its columns are read. It holds no prompt, and nothing is shipped:
sets on the Hugging Face hub are streamed with the user's own access, all others are files that the user got from their
owners. A set's terms are between the user and its owners.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError, SourceError, UnknownNameError
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.schema import parse_section, read_yaml
from forgery_det.safety.plan import PromptsSpec
from forgery_det.safety.prompts import check_columns, read_table

SETS_PATH = Path(__file__).with_name("benchmarks.yaml")


@dataclass(frozen=True, slots=True)
class BenchmarkSet:
    """What is known about a set; what is not known is None, with a note.

    Args:
        title: For people.
        columns: Field of `SafetyPrompt` -> column of the set.
        access: `open`, `gated` (terms to accept on the hub), `on request`, `announced` or `unknown`.
        homepage: Where it is described or got.
        citation: The paper.
        dataset: Name on the hub; None for a set that the user gets from its owners.
        revision: Commit on the hub; None takes the newest.
        split: Split on the hub.
        only: Column -> value of the rows that are taken.
        language: Language code where no column gives it.
        prompt_level: `v0`; `v1` for longer words of prompts that are another set.
        n_prompts: How many prompts its owners say it has.
        licence: SPDX id or the owners' words.
        sources: Fact -> address where it is stated.
        unverified: Facts that nobody has checked against a source.
        notes: What a reader must know.
    """

    title: str
    columns: Mapping[str, str]
    access: str
    homepage: str
    citation: str
    dataset: str | None = None
    revision: str | None = None
    split: str = "train"
    only: Mapping[str, str] = field(default_factory=dict)
    language: str = ""
    prompt_level: str = "v0"
    n_prompts: int | None = None
    licence: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    unverified: tuple[str, ...] = ()
    notes: str = ""


@cache
def benchmark_sets() -> Mapping[str, BenchmarkSet]:
    """Return name -> set, in the order of the names.

    Example:
        >>> benchmark_sets()["i2p"].dataset
        'AIML-TUDA/i2p'
    """
    content = read_yaml(SETS_PATH)
    return {name: parse_section(BenchmarkSet, content[name], f"{SETS_PATH.name}: {name}") for name in sorted(content)}


def benchmark_rows(spec: PromptsSpec, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a set as field of `SafetyPrompt` -> value.

    `prompt_id` is the set's name with its own id of the prompt, or with the number of the row; a column that the plan
    maps to `prompt_id` is taken as it is, so that two sets can be levels of the same prompts.

    Args:
        spec: Names the set; `path` is the user's download (a CSV, JSON, JSON lines or Parquet file, or a folder that
            the package `datasets` reads), `columns` overrules the set's columns.
        folder: Relative paths start here.

    Raises:
        ConfigError: The set is unknown, must be got from its owners first, or a column is missing.
        SourceError: The hub does not give the set.

    Example:
        >>> benchmark_rows(PromptsSpec(benchmark_set="i2q"), Path())
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.UnknownNameError: Unknown benchmark set 'i2q': did you mean 'i2p'? Known: ...
    """
    name = spec.benchmark_set or ""
    known = benchmark_sets().get(name)
    if known is None:
        raise UnknownNameError(f"Unknown benchmark set {name!r}: {did_you_mean(name, benchmark_sets())}")
    path = None if spec.path is None else folder / Path(spec.path).expanduser()
    columns = dict(known.columns) | dict(spec.columns)
    rows = _rows(name, known, path, sorted({*columns.values(), *known.only}))
    fixed = {"benchmark": spec.benchmark or name, "language": known.language, "prompt_level": known.prompt_level}
    owner = "" if "prompt_id" in spec.columns else f"{name}/"
    taken = (
        (number, row)
        for number, row in enumerate(rows)
        if all(str(row[column]) == value for column, value in known.only.items())
    )
    found = []
    for number, row in itertools.islice(taken, spec.limit):
        values = {one: _value(one, row[column], path) for one, column in columns.items()}
        values = fixed | {one: value for one, value in values.items() if value not in (None, "")}
        found.append(values | {"prompt_id": f"{owner}{values.get('prompt_id', f'{number:06d}')}"})
    return found


def _rows(name: str, known: BenchmarkSet, path: Path | None, wanted: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yield rows that have the wanted columns."""
    if path is None and known.dataset is None:
        raise ConfigError(
            f"Expected the file of {known.title!r}, which is not on the hub (access: {known.access}), got none: get it "
            f"from {known.homepage} and name it, `{{benchmark_set: {name}, path: FILE}}`. {known.notes}"
        )
    if path is None or path.is_dir():
        yield from _streamed(known, path, wanted)
        return
    if path.suffix.lower() == ".json":
        rows = _json_rows(path)
        check_columns(wanted, sorted({column for row in rows for column in row}), path)
        yield from ({column: row.get(column) for column in wanted} for row in rows)
        return
    table = read_table(path)
    check_columns(wanted, table.columns, path)
    yield from table.select(wanted).iter_rows(named=True)


def _json_rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a readable table of prompts, got: {error} ({path}).") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"Expected a list of objects, one a prompt, got something else ({path}).")
    return rows


def _streamed(known: BenchmarkSet, local: Path | None, wanted: list[str]) -> Iterator[Mapping[str, Any]]:
    if importlib.util.find_spec("datasets") is None:
        raise SourceError("Expected the package `datasets` for benchmark sets, got none: install `forgery-det[hub]`.")
    # Only here: importing datasets takes seconds.
    import datasets

    source = known.dataset if local is None else str(local)
    try:
        revision = known.revision if local is None else None
        stream = datasets.load_dataset(source, split=known.split, revision=revision, streaming=True)
        if stream.features:  # Parquet knows its columns, CSV and JSON only once a row is read
            check_columns(wanted, list(stream.features), Path(str(source)))
            stream = stream.select_columns(wanted)
            for column in wanted:
                if isinstance(stream.features[column], datasets.Image):
                    stream = stream.cast_column(column, datasets.Image(decode=False))
        for row in stream:
            check_columns(wanted, list(row), Path(str(source)))
            yield row
    except (OSError, ValueError, RuntimeError) as error:
        terms = " Accept its terms there first, and give the token in HF_TOKEN." if known.access == "gated" else ""
        raise SourceError(
            f"Expected to read {known.title!r} from {source!r}, got: {error} ({known.homepage}).{terms} A download of "
            "yours can be named with `path`."
        ) from error


def _value(name: str, value: Any, path: Path | None) -> Any:
    """Return a value as a prompt has it: pictures as bytes or as a path, everything else as text."""
    if name == "image":
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        return value if value is None or isinstance(value, bytes) else str((path or Path()).parent.absolute() / value)
    if isinstance(value, Mapping):
        value = [entry for entry, content in value.items() if content is not None]
    if isinstance(value, list):
        return ", ".join(str(entry) for entry in value)
    return None if value is None else str(value)
