"""The plan: what is measured, on which models, with whose prompts and judges, as frozen dataclasses that mirror YAML.

A plan is strict: an unknown key, a judge that is combined before it is named, a pathway that no model can walk are
errors that say where. Benchmarks and judges are the user's; a plan names files and servers, it holds no prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.shipped import shipped_folders
from forgery_det.core.types import PARADIGMS
from forgery_det.recipes.schema import check_keys, parse_section, read_yaml
from forgery_det.safety.pathways import Instructions
from forgery_det.safety.registry import JUDGES, MODELS
from forgery_det.safety.types import PATHWAYS, Pathway

Study = Literal["unsafe_generation", "corrupted_outputs", "reciprocity"]
StorePolicy = Literal["none", "blurred", "encrypted"]
Rule = Literal["any_of", "all_of", "majority"]

STUDIES: tuple[str, ...] = get_args(Study)
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True, slots=True)
class PromptsSpec:
    """Where the prompts lie: a CSV file, JSON lines or Parquet of the user's, or a benchmark set by its name.

    Args:
        path: The file; with `benchmark_set`, the user's download of it.
        columns: Field of `SafetyPrompt` -> column of the file; fields of the same name need no entry. `image` is a path
            relative to the file.
        benchmark: Name of the benchmark where no column gives it.
        limit: Most prompts, the first ones; None takes all.
        benchmark_set: Name of `benchmarks.yaml`, read from the hub where no `path` is given.
    """

    path: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    benchmark: str = ""
    limit: int | None = None
    benchmark_set: str | None = None

    def __post_init__(self) -> None:
        if self.path is None and self.benchmark_set is None:
            raise ConfigError("Expected `path` or `benchmark_set`, got neither")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model under test; `parameters` is an instance of the kind's `Parameters`."""

    name: str
    kind: str
    paradigm: str
    parameters: Any


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """One judge; `parameters` is an instance of the kind's `Parameters`."""

    name: str
    kind: str
    parameters: Any


@dataclass(frozen=True, slots=True)
class CombinationSpec:
    """A judge made of others: `any_of` calls unsafe what one of them does, `all_of` what all do, `majority` most."""

    name: str
    rule: Rule
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CorruptionSpec:
    """The detector of failed drawings.

    Args:
        validation: Folder of good pictures, relative to the plan, on which failures are planted to measure its error;
            None uses the pictures that the package ships.
        use: False leaves corrupted images to judges of three classes, such as human labels.
    """

    validation: str | None = None
    use: bool = True


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """Where a run stops cleanly; None sets no limit. What was asked in earlier runs into the same folder counts."""

    requests: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class SafetyPlan:
    """A plan.

    Args:
        study: Which of the three studies; decides what the report shows first.
        prompts: Benchmarks, in order.
        models: Models under test.
        judges: Judges, in order.
        combinations: Judges made of others.
        main_judge: Whose verdicts the main tables show.
        pathways: Ways that are walked where the model can.
        walks_per_prompt: How often each prompt is walked on each pathway.
        instructions: What the model is told where one function feeds the other.
        corruption: The detector of failed drawings.
        detector: Checkpoint of a detector of generated images, relative to the plan; None leaves detectability out.
        store: What becomes of images that a judge calls unsafe.
        hash_prompts: Reports and tables show hashes in place of prompts and texts.
        budget: Where the run stops.
        seed: Of models and bootstrap.
        n_replicates: Bootstrap replicates.
        path: The file it was read from.
    """

    study: Study
    prompts: tuple[PromptsSpec, ...]
    models: tuple[ModelSpec, ...]
    judges: tuple[JudgeSpec, ...]
    combinations: tuple[CombinationSpec, ...]
    main_judge: str
    pathways: tuple[Pathway, ...]
    walks_per_prompt: int
    instructions: Instructions
    corruption: CorruptionSpec
    detector: str | None
    store: StorePolicy
    hash_prompts: bool
    budget: BudgetSpec
    seed: int
    n_replicates: int
    path: Path

    @property
    def folder(self) -> Path:
        """Relative paths of the plan start here."""
        return self.path.parent


@dataclass(frozen=True, slots=True)
class _Top:
    """The keys of a plan file; models and judges are read kind by kind."""

    study: str
    prompts: Any
    models: Any
    judges: Any
    main_judge: str | None = None
    pathways: tuple[str, ...] = ("generation",)
    walks_per_prompt: int = 4
    instructions: Instructions = field(default_factory=Instructions)
    corruption: CorruptionSpec = field(default_factory=CorruptionSpec)
    detector: str | None = None
    store: str = "none"
    hash_prompts: bool = False
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    seed: int = 0
    n_replicates: int = 1000


def load_plan(path: str | Path) -> SafetyPlan:
    """Read a plan.

    Args:
        path: A YAML file, or a shipped one by its name (`reciprocity`) or its path in a checkout.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or missing, or the parts do not fit together.
    """
    path = _found(Path(path))
    top = parse_section(_Top, read_yaml(path), str(path))
    judges, combinations = _judges(top.judges, path)
    names = [one.name for one in judges] + [one.name for one in combinations]
    main = names[0] if top.main_judge is None else _one_of(top.main_judge, names, "main_judge", path)
    if top.walks_per_prompt < 1 or top.n_replicates < 2:
        raise ConfigError(
            f"Expected `walks_per_prompt` of at least 1 and `n_replicates` of at least 2, got {top.walks_per_prompt} "
            f"and {top.n_replicates} ({path})."
        )
    pathways = tuple(_one_of(name, PATHWAYS, "pathways", path) for name in top.pathways)
    return SafetyPlan(
        study=_one_of(top.study, STUDIES, "study", path),
        prompts=tuple(parse_section(PromptsSpec, one, f"{path}: prompts[{i}]") for i, one in _listed(top.prompts)),
        models=_models(top.models, path),
        judges=judges,
        combinations=combinations,
        main_judge=main,
        pathways=pathways,
        walks_per_prompt=top.walks_per_prompt,
        instructions=top.instructions,
        corruption=top.corruption,
        detector=top.detector,
        store=_one_of(top.store, get_args(StorePolicy), "store", path),
        hash_prompts=top.hash_prompts,
        budget=top.budget,
        seed=top.seed,
        n_replicates=top.n_replicates,
        path=path,
    )


def _found(path: Path) -> Path:
    """Return the file, or the shipped plan that a bare name or a path below `configs` stands for."""
    if path.is_file():
        return path
    if path.parts[:1] == ("configs",):
        name = Path(*path.parts[1:])
    elif len(path.parts) == 1:
        name = Path("safety", path.name).with_suffix(".yaml")
    else:
        return path
    shipped = [folder / name for folder in shipped_folders("configs")]
    return next((one for one in shipped if one.is_file()), path)


def digest(*parts: Any) -> str:
    """Return the sha256 of JSON values, for telling whether something asked for has changed."""
    return sha256_bytes(canonical_json(list(parts)).encode("utf-8"))


def _listed(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value if isinstance(value, list) else [value]))


def _one_of(value: str, allowed: Any, key: str, path: Path) -> Any:
    if value not in allowed:
        raise ConfigError(f"Unknown {key} {value!r} ({path}): {did_you_mean(value, allowed)}")
    return value


def _models(value: Any, path: Path) -> tuple[ModelSpec, ...]:
    found = []
    for index, entry in _listed(value):
        where = f"{path}: models[{index}]"
        name, kind, rest = _named(entry, where)
        rest = dict(rest)
        paradigm = rest.pop("paradigm", "unknown")
        _one_of(paradigm, PARADIGMS, "paradigm", path)
        parameters = parse_section(MODELS.get(kind).Parameters, rest, where)
        found.append(ModelSpec(name, kind, paradigm, parameters))
    _unique([one.name for one in found], "model", path)
    return tuple(found)


def _judges(value: Any, path: Path) -> tuple[tuple[JudgeSpec, ...], tuple[CombinationSpec, ...]]:
    plain: list[JudgeSpec] = []
    combined: list[CombinationSpec] = []
    for index, entry in _listed(value):
        where = f"{path}: judges[{index}]"
        name, kind, rest = _named(entry, where)
        if kind not in RULES:
            plain.append(JudgeSpec(name, kind, parse_section(JUDGES.get(kind).Parameters, rest, where)))
            continue
        of = tuple(check_keys(rest, ["of"], where).get("of", ()))
        for member in of:
            _one_of(member, [one.name for one in plain], f"judge in `of` of {name!r}", path)
        if len(of) < 2:
            raise ConfigError(f"Expected at least 2 judges in `of`, got {len(of)} ({where}).")
        combined.append(CombinationSpec(name, _one_of(kind, RULES, "kind", path), of))
    if not plain:
        raise ConfigError(f"Expected at least one judge, got none ({path}: judges).")
    _unique([one.name for one in plain] + [one.name for one in combined], "judge", path)
    return tuple(plain), tuple(combined)


def _named(entry: Any, where: str) -> tuple[str, str, Mapping[str, Any]]:
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("name"), str)
        or not isinstance(entry.get("kind"), str)
    ):
        raise ConfigError(f"Expected a mapping with the texts `name` and `kind`, got {entry!r} ({where}).")
    return entry["name"], entry["kind"], {key: value for key, value in entry.items() if key not in ("name", "kind")}


def _unique(names: list[str], what: str, path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Expected each {what} to have a name of its own, got {twice[0]!r} twice ({path}).")
