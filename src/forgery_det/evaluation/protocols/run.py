"""Which protocols an evaluation runs, checked before anything is scored, and run one after the other.

A protocol is declared in YAML by its name and its options; both are checked against the registry and the function's
signature, so that a misspelt option is an error and never a silent default.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.protocols.registry import PROTOCOLS

Declared = Mapping[str, Mapping[str, Any] | None]

DEFAULT_PROTOCOLS: Declared = {"prompt_length": {}, "false_alarm": {}, "held_out_generator": {}, "temporal": {}}
"""Protocols that need nothing but the predictions every evaluation makes: seconds each."""


def check_protocols(declared: Declared) -> dict[str, dict[str, Any]]:
    """Return the declared protocols with their options, in the declared order; dates become texts.

    Args:
        declared: Protocol name -> options; None or an empty mapping for the defaults.

    Raises:
        ConfigError: `declared` or the options of a protocol are no mapping, or an option is unknown.
        UnknownNameError: No such protocol.

    Example:
        >>> check_protocols({"temporal": {"period": "half_year"}, "false_alarm": None})
        {'temporal': {'period': 'half_year'}, 'false_alarm': {}}
    """
    if not isinstance(declared, Mapping):
        raise ConfigError(f"Expected `protocols` as a mapping of names to options, got {declared!r}.")
    checked = {}
    for name, options in declared.items():
        known = option_names(PROTOCOLS.get(name))
        if not isinstance(options, Mapping | None):
            raise ConfigError(f"Expected the options of protocol {name!r} as a mapping, got {options!r}.")
        for option in options or {}:
            if option not in known:
                raise ConfigError(f"Unknown option {option!r} of protocol {name!r}: {did_you_mean(str(option), known)}")
        checked[name] = {option: _plain(value) for option, value in (options or {}).items()}
    return checked


def option_names(protocol: Callable[..., ProtocolResult]) -> tuple[str, ...]:
    """Return the options of a protocol: the keyword-only parameters of its function."""
    parameters = inspect.signature(protocol).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def run_protocols(
    protocols: Mapping[str, Mapping[str, Any]],
    context: ProtocolContext,
    stage: Callable[[str], AbstractContextManager[None]],
) -> tuple[ProtocolResult, ...]:
    """Run checked protocols in order, each within `stage("protocol.NAME")`, which takes the time."""
    results = []
    for name, options in protocols.items():
        with stage(f"protocol.{name}"):
            results.append(PROTOCOLS.get(name)(context, **options))
    return tuple(results)


def _plain(value: Any) -> Any:
    """Return an option as JSON can hold it: YAML reads an unquoted 2025-01-31 as a date."""
    return value.isoformat() if isinstance(value, date) else value
