"""Reading the top-level key `prompt_sets` of a recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import Registry, did_you_mean
from forgery_det.core.types import PROMPT_LEVELS
from forgery_det.recipes.prompt_sets import ExpandSpec, PromptSetSpec
from forgery_det.recipes.prompting.language import LANGUAGES
from forgery_det.recipes.prompting.registry import PROMPT_KINDS, TEXT_MODELS
from forgery_det.recipes.schema import check_keys, parse_section

DEFAULT_INSTRUCTION = (
    "Rewrite the image description that the user gives as a longer, more detailed description of the same image. Keep "
    "every person, object, number and relation that it names; add plausible detail about appearance, setting, light, "
    "colour and composition. Write in the language of the given description. Answer with the description alone."
)
"""What a text model is told where a recipe gives no instruction."""


@dataclass(frozen=True, slots=True)
class _SetKeys:
    """Keys of one prompt set; `from` and `expand` depend on their kind and are read after it."""

    limit: int | None = None
    levels: tuple[str, ...] = ("v0",)
    expand: Any = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"Expected `limit` of at least 1, got {self.limit}")
        for level in self.levels:
            if level not in PROMPT_LEVELS:
                raise ConfigError(f"Unknown level {level!r} in `levels`: {did_you_mean(level, PROMPT_LEVELS)}")
        if self.levels != PROMPT_LEVELS[: len(self.levels)] or not self.levels:
            raise ConfigError(
                f"Expected `levels` from {PROMPT_LEVELS[0]} on without a gap, as each grows out of the one before, got "
                f"{list(self.levels)}"
            )


@dataclass(frozen=True, slots=True)
class _ExpandKeys:
    """Keys of `expand` that every text model has; all others belong to its kind."""

    kind: str
    instruction: str | None = None
    seed: int = 0
    language: str | None = None

    def __post_init__(self) -> None:
        if self.language is not None and self.language not in LANGUAGES:
            raise ConfigError(f"Unknown language {self.language!r}: {did_you_mean(self.language, LANGUAGES)}")


def parse_prompt_sets(value: Any, path: Path) -> dict[str, PromptSetSpec]:
    """Return the prompt sets of a recipe, by name.

    Args:
        value: What YAML gave under `prompt_sets`.
        path: The recipe file that names them.

    Raises:
        ConfigError: A set breaks the schema; the text names file and key path.
    """
    where = f"{path.name}: prompt_sets"
    if not isinstance(value, Mapping):
        raise ConfigError(f"Expected a mapping of names to prompt sets, got {value!r} ({where}).")
    for name in value:
        if not re.fullmatch(r"[\w.-]{1,64}", str(name)):
            raise ConfigError(f"Expected a name of letters, digits, '_', '.' and '-', got {name!r} ({where}).")
    return {str(name): _prompt_set(str(name), item, path, f"{where}.{name}") for name, item in value.items()}


def prompt_files(specs: Mapping[str, PromptSetSpec]) -> dict[str, Path]:
    """Return the files whose content decides what the sets are, by a name for the recipe's digest."""
    return {
        f"prompt_sets.{spec.name}.{index}": path
        for spec in specs.values()
        for index, path in enumerate(PROMPT_KINDS.get(spec.kind).files(spec.parameters, spec.folder))
    }


def parse_text_model(item: Any, where: str, *, sees: bool, default_instruction: str) -> ExpandSpec:
    """Return what a recipe says under `expand`, or under `by` of captions.

    Args:
        item: What YAML gave.
        where: File and key path, for errors.
        sees: The model is to describe images; otherwise it is to expand texts.
        default_instruction: Taken where the recipe gives none.

    Raises:
        ConfigError: The kind or a key is unknown, a value does not fit, or the model cannot do what is asked.
    """
    kind = _kind(item, TEXT_MODELS, where)
    model = TEXT_MODELS.get(kind)
    if not (model.sees if sees else model.reads):
        fitting = [name for name in TEXT_MODELS if getattr(TEXT_MODELS.get(name), "sees" if sees else "reads")]
        task = "describes images" if sees else "expands texts"
        raise ConfigError(f"Expected a model that {task}, one of {', '.join(fitting)}, got {kind!r} ({where}.kind).")
    common, own = _ExpandKeys.__dataclass_fields__, model.Parameters.__dataclass_fields__
    check_keys(item, (*common, *own), where)
    keys = parse_section(_ExpandKeys, {key: item[key] for key in item if key in common}, where)
    parameters = parse_section(model.Parameters, {key: item[key] for key in item if key not in common}, where)
    if not model.takes_instruction(parameters):
        if keys.instruction is not None:
            raise ConfigError(f"Expected no `instruction`, as this {kind!r} takes none, got one ({where}.instruction).")
        default_instruction = ""
    return ExpandSpec(kind, parameters, keys.instruction or default_instruction, keys.seed, keys.language)


def _prompt_set(name: str, item: Any, path: Path, where: str) -> PromptSetSpec:
    check_keys(item, ("from", *_SetKeys.__dataclass_fields__), where)
    keys = parse_section(_SetKeys, {key: item[key] for key in item if key != "from"}, where)
    if "from" not in item:
        raise ConfigError(f"Expected the key 'from', got none ({where}).")
    kind = _kind(item["from"], PROMPT_KINDS, f"{where}.from")
    source = PROMPT_KINDS.get(kind)
    given = {key: value for key, value in item["from"].items() if key != "kind"}
    parameters = parse_section(source.Parameters, given, f"{where}.from")
    expand = None
    if keys.expand is not None:
        expand = parse_text_model(keys.expand, f"{where}.expand", sees=False, default_instruction=DEFAULT_INSTRUCTION)
    given_levels = set(PROMPT_LEVELS) & set(getattr(parameters, "columns", ()))
    for level in keys.levels[1:]:
        if expand is None and level not in given_levels:
            raise ConfigError(f"Expected `expand`, or a column for the level {level!r}, got neither ({where}).")
    return PromptSetSpec(
        name=name,
        kind=kind,
        parameters=parameters,
        folder=path.parent,
        limit=keys.limit,
        levels=keys.levels,
        caption=source.writer(parameters, f"{where}.from"),
        expand=expand,
        tokenizer=keys.tokenizer,
    )


def _kind(item: Any, registry: Registry, where: str) -> str:
    if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
        raise ConfigError(f"Expected a mapping with the key 'kind', got {item!r} ({where}).")
    kind: str = item["kind"]
    if kind not in registry:
        raise ConfigError(f"Unknown {registry.kind} {kind!r} ({where}.kind): {did_you_mean(kind, registry)}")
    return kind
