"""Strict reading of YAML into frozen dataclasses: every mistake names the file, the key path and the nearest known key.

The dataclass is the schema. A field without default is required; its annotation says which values fit: `int`, `float`,
`str`, `bool`, `date`, `X | None`, `tuple[X, ...]`, `Mapping[str, X]` and other dataclasses.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import yaml

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean

T = TypeVar("T")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key written twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(f"Expected each key once, got {key!r} again at line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or names a key twice.
    """
    try:
        # The loader derives from SafeLoader: it builds plain values only.
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except ConfigError as error:
        raise ConfigError(f"{error} ({path}).") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Expected a readable YAML file, got: {error} ({path}).") from error


def check_keys(value: Any, allowed: Iterable[str], where: str) -> Mapping[str, Any]:
    """Return `value` when it is a mapping of allowed keys.

    Raises:
        ConfigError: It is not a mapping, or a key is unknown; the text offers the nearest known keys.

    Example:
        >>> check_keys({"rot": 1}, ["root"], "r.yaml: sources[0]")
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Unknown key 'rot' (r.yaml: sources[0]): did you mean 'root'? Known: root.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"Expected a mapping of keys to values, got {value!r} ({where}).")
    known = list(allowed)
    for key in value:
        if key not in known:
            raise ConfigError(f"Unknown key {str(key)!r} ({where}): {did_you_mean(str(key), known)}")
    return value


def parse_section(cls: type[T], value: Any, where: str) -> T:
    """Build the dataclass `cls` from a mapping, checking keys and types.

    Args:
        cls: A dataclass.
        value: What YAML gave.
        where: File and key path, for errors.

    Raises:
        ConfigError: A key is unknown or missing, or a value has another type than the field.

    Example:
        >>> from forgery_det.recipes.recipe import DedupPolicy
        >>> parse_section(DedupPolicy, {"phash_distance": 3}, "r.yaml: dedup")
        DedupPolicy(exact=True, phash_distance=3)
        >>> parse_section(DedupPolicy, {"exact": 3}, "r.yaml: dedup")
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Expected true or false, got 3 (r.yaml: dedup.exact).
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    given = check_keys(value, [field.name for field in fields], where)
    hints = typing.get_type_hints(cls)
    built = {}
    for field in fields:
        if field.name in given:
            built[field.name] = _convert(hints[field.name], given[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"Expected the key {field.name!r}, got none ({where}).")
    try:
        return cls(**built)
    except ConfigError as error:
        raise ConfigError(f"{error} ({where}).") from error


_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false", date: "a date (YYYY-MM-DD)"}


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(hint):
            return None
        (inner,) = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return _convert(inner, value, where)
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        # One text stands for a list of one, which is how people write a single glob or generator.
        items = [value] if isinstance(value, str) and inner is str else value
        if not isinstance(items, list | tuple):
            raise ConfigError(f"Expected a list, got {value!r} ({where}).")
        return tuple(_convert(inner, item, f"{where}[{index}]") for index, item in enumerate(items))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"Expected a mapping of keys to values, got {value!r} ({where}).")
        inner = typing.get_args(hint)[1]
        return {str(key): _convert(inner, item, f"{where}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return parse_section(hint, value, where)
    return _scalar(hint, value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        # YAML reads `version: 1.10` as the number 1.1: quoting is the only way to keep the text.
        raise ConfigError(f"Expected a text, got the number {value!r}: put it in quotes ({where}).")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"Expected {_NAMES.get(hint, hint.__name__)}, got {value!r} ({where}).")
    return value
