"""Reading `recipe.yaml`.

`data_recipes/_template/recipe.yaml` shows every key. A recipe is read strictly (see `schema`): an unknown key is an
error with the file, the path of the key and the nearest known key. Labels come from the recipe or from an annotation
table, never from the text of a path.

A recipe may start from another one: `extends: ../samples/recipe.yaml` takes over all its keys; the keys given here
replace those, and the sources given here are added to its sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes, sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.shipped import shipped_folders
from forgery_det.recipes.annotations import item_field
from forgery_det.recipes.licences import check_recipe_licences
from forgery_det.recipes.prompting.schema import parse_prompt_sets, prompt_files
from forgery_det.recipes.recipe import (
    AlignPolicy,
    CropPolicy,
    DedupPolicy,
    FilterPolicy,
    PromptSpec,
    Recipe,
    SourceSpec,
    SplitPolicy,
)
from forgery_det.recipes.references import check_references
from forgery_det.recipes.schema import check_keys, parse_section, read_yaml
from forgery_det.recipes.sources.registry import PROMPT_FORMATS, SOURCES

RECIPE_NAME = "recipe.yaml"
COMMERCIAL_USE = ("yes", "no", "unknown")


@dataclass(frozen=True, slots=True)
class _TopLevel:
    """Keys of `recipe.yaml`; `sources`, `prompts` and `prompt_sets` depend on their kind and are read after it."""

    name: str
    description: str
    licence: str
    sources: tuple[Any, ...]
    split: SplitPolicy
    align: AlignPolicy | None
    commercial_use: str = "unknown"
    filter: FilterPolicy = field(default_factory=FilterPolicy)
    dedup: DedupPolicy = field(default_factory=DedupPolicy)
    prompts: Any = None
    prompt_sets: Any = None
    citation: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _SourceKeys:
    """Keys that every source has; all others belong to its kind."""

    id: str
    kind: str
    label: Any = None
    licence: str | None = None
    citation: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    annotations: str | None = None
    crops: CropPolicy = field(default_factory=CropPolicy)


_COMMON_KEYS = tuple(_SourceKeys.__dataclass_fields__)


def load_recipe(path_or_name: str | Path) -> Recipe:
    """Read and check a recipe.

    Args:
        path_or_name: A YAML file, a folder with `recipe.yaml`, or the name of a shipped recipe.

    Raises:
        ConfigError: There is no such recipe, it breaks the schema, or it is marked commercial and a licence in it
            forbids that; the text names file and key path.

    Example:
        >>> load_recipe("samples").name
        'samples'
        >>> load_recipe("sample")
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Expected a recipe file, ...got 'sample': did you mean 'samples'? Known: ...
    """
    path = _find(path_or_name)
    content, origins = _merged(path)
    top = parse_section(_TopLevel, content, path.name)
    if top.commercial_use not in COMMERCIAL_USE:
        hint = did_you_mean(top.commercial_use, COMMERCIAL_USE)
        raise ConfigError(f"Unknown commercial_use {top.commercial_use!r} ({path}: commercial_use): {hint}")
    sources = tuple(
        _source(item, file, f"{file.name}: sources[{index}]")
        for item, (file, index) in zip(top.sources, origins["sources"], strict=True)
    )
    ids = [source.id for source in sources]
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(f"Expected at least one source and each `id` once, got {ids} ({path}: sources).")
    prompt_sets = {}
    if top.prompt_sets is not None:
        prompt_sets = parse_prompt_sets(top.prompt_sets, origins["prompt_sets"][0][0])
    tables = {source.id: sha256_file(source.annotations) for source in sources if source.annotations is not None}
    tables |= {name: sha256_file(file) for name, file in prompt_files(prompt_sets).items()}
    digest = sha256_bytes(canonical_json([_plain(content), tables]).encode("utf-8"))
    recipe = Recipe(
        name=top.name,
        description=" ".join(top.description.split()),
        licence=top.licence,
        commercial_use=top.commercial_use,
        sources=sources,
        split=top.split,
        align=top.align,
        filter=top.filter,
        dedup=top.dedup,
        prompts=None if top.prompts is None else _prompts(top.prompts, origins["prompts"][0][0]),
        citation=top.citation,
        seed=top.seed,
        path=path,
        digest=digest,
        prompt_sets=prompt_sets,
    )
    check_references(recipe)
    check_recipe_licences(recipe)
    return recipe


def list_recipes() -> tuple[Recipe, ...]:
    """Return the shipped recipes, in the order of their names.

    Raises:
        ConfigError: One of them breaks the schema.

    Example:
        >>> [recipe.name for recipe in list_recipes() if recipe.commercial_use == "unknown"][-2:]
        ['samples', 'wild_mini']
    """
    return tuple(load_recipe(name) for name in recipe_names())


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes, sorted, reading none of them."""
    found = {
        path.parent.name
        for folder in shipped_folders("data_recipes")
        for path in folder.glob(f"*/{RECIPE_NAME}")
        if not path.parent.name.startswith("_")
    }
    return tuple(sorted(found))


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name).expanduser()
    if path.is_dir() and (path / RECIPE_NAME).is_file():
        path = path / RECIPE_NAME
    if path.is_file():
        return path.resolve()
    if len(path.parts) == 1 and path.suffix not in (".yaml", ".yml"):
        for folder in shipped_folders("data_recipes"):
            if (folder / path / RECIPE_NAME).is_file():
                return folder / path / RECIPE_NAME
    hint = did_you_mean(str(path_or_name), recipe_names())
    raise ConfigError(
        f"Expected a recipe file, a folder with {RECIPE_NAME} or the name of a shipped recipe, "
        f"got {str(path_or_name)!r}: {hint}"
    )


_Origins = dict[str, list[tuple[Path, int]]]
"""Top-level key -> the file that each of its values was read from, and the position there."""


def _merged(path: Path, below: tuple[Path, ...] = ()) -> tuple[dict[str, Any], _Origins]:
    """Read a recipe together with the recipes that it extends."""
    if path in below:
        raise ConfigError(f"Expected recipes that extend one another in a line, got a circle ({path}: extends).")
    content = dict(check_keys(read_yaml(path), (*_TopLevel.__dataclass_fields__, "extends"), path.name))
    items = content.get("sources", [])
    origins: _Origins = {name: [(path, 0)] for name in content}
    if not isinstance(items, list):
        raise ConfigError(f"Expected a list, got {items!r} ({path.name}.sources).")
    origins["sources"] = [(path, index) for index in range(len(items))]
    parent = content.pop("extends", None)
    if parent is None:
        return content, origins
    if not isinstance(parent, str) or not (path.parent / parent).is_file():
        raise ConfigError(f"Expected the path of a recipe file, got {parent!r} ({path.name}.extends).")
    base, base_origins = _merged((path.parent / parent).resolve(), (*below, path))
    merged = base | content | {"sources": [*base.get("sources", []), *items]}
    return merged, base_origins | origins | {"sources": [*base_origins["sources"], *origins["sources"]]}


def _source(item: Any, path: Path, where: str) -> SourceSpec:
    kind, parameters_type = _kind(item, where)
    check_keys(item, (*_COMMON_KEYS, *parameters_type.__dataclass_fields__), where)
    common = parse_section(_SourceKeys, {key: item[key] for key in item if key in _COMMON_KEYS}, where)
    parameters = parse_section(parameters_type, {key: item[key] for key in item if key not in _COMMON_KEYS}, where)
    for name in ("label", "licence"):
        if name in common.fields:
            raise ConfigError(f"Expected `{name}` as a key of the source, got it under `fields` ({where}.fields).")
    table = None if common.annotations is None else path.parent / common.annotations
    if table is not None and not table.is_file():
        raise ConfigError(f"Expected an annotation table, got no file {table} ({where}.annotations).")
    return SourceSpec(
        id=common.id,
        kind=kind,
        parameters=parameters,
        label=None if common.label is None else item_field("label", common.label, f"{where}.label"),
        licence=common.licence,
        citation=common.citation,
        fields={name: item_field(name, value, f"{where}.fields") for name, value in common.fields.items()},
        annotations=table,
        crops=common.crops,
        folder=path.parent,
    )


def _prompts(item: Any, path: Path) -> PromptSpec:
    where = f"{path.name}: prompts"
    kind, parameters_type = _kind(item, where)
    check_keys(item, ("kind", "format", *parameters_type.__dataclass_fields__), where)
    if item.get("format") not in PROMPT_FORMATS:
        hint = did_you_mean(str(item.get("format")), PROMPT_FORMATS)
        raise ConfigError(f"Unknown prompt format {item.get('format')!r} ({where}.format): {hint}")
    given = {key: item[key] for key in item if key not in ("kind", "format")}
    return PromptSpec(item["format"], kind, parse_section(parameters_type, given, where), path.parent)


def _kind(item: Any, where: str) -> tuple[str, Any]:
    if not isinstance(item, Mapping) or "kind" not in item:
        raise ConfigError(f"Expected a mapping with the key 'kind', got {item!r} ({where}).")
    if item["kind"] not in SOURCES:
        raise ConfigError(
            f"Unknown source kind {item['kind']!r} ({where}.kind): {did_you_mean(str(item['kind']), SOURCES)}"
        )
    return item["kind"], SOURCES.get(item["kind"]).Parameters


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
