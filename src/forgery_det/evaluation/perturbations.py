"""Which perturbed copies of the judged split are scored beside the clean images, checked before anything is scored.

The YAML names perturbations and severities; here they become `Condition`s in a fixed order, so that two files that ask
for the same copies in another order give the same table.

    perturbations: {jpeg: [1, 4, 8], blur: all}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from forgery_det.core.errors import ConfigError
from forgery_det.core.types import CLEAN
from forgery_det.transforms.perturb import PERTURBATIONS, Perturbation

Declared = Mapping[str, Sequence[int] | Literal["all"]]
"""Perturbation name -> severities, or `all`."""


@dataclass(frozen=True, slots=True, order=True)
class Condition:
    """One perturbation at one severity.

    Args:
        perturbation: Name in `PERTURBATIONS`, `none` for the image as stored.
        severity: From 1 on; 0 for `none`.
    """

    perturbation: str
    severity: int

    @property
    def is_clean(self) -> bool:
        """Whether this is the image as stored."""
        return self.perturbation == CLEAN

    @property
    def slice(self) -> str:
        """How `results.parquet` calls it, for instance `perturbation=jpeg,severity=4`."""
        return f"perturbation={self.perturbation},severity={self.severity}"

    def describe(self) -> str:
        """Return its parameters in words, for instance `quality 70`; empty where there is nothing to set."""
        if self.is_clean:
            return "as stored"
        found: Perturbation = PERTURBATIONS.get(self.perturbation)
        return found.describe(self.severity)

    def identity(self) -> list[Any]:
        """Return name, severity and parameters: what a copy depends on beside the image."""
        found: Perturbation = PERTURBATIONS.get(self.perturbation)
        return [self.perturbation, self.severity, dict(found.parameters(self.severity))]


UNPERTURBED = Condition(CLEAN, 0)


class BadCopy(NamedTuple):
    """A perturbed copy that could not be scored, of an image that could.

    Args:
        image_id: From the manifest.
        path: From the manifest.
        perturbation: Name of the perturbation.
        severity: Its severity.
        reason: Stable word, then the sentence for people.
    """

    image_id: str
    path: str
    perturbation: str
    severity: int
    reason: str


def check_perturbations(declared: Declared | None) -> dict[str, list[int]]:
    """Return the declared perturbations with their severities spelt out, both sorted.

    Args:
        declared: Perturbation name -> severities or `all`; None for none.

    Raises:
        ConfigError: Not a mapping, or a severity that does not exist, is given twice, or is no list.
        UnknownNameError: No such perturbation.

    Example:
        >>> check_perturbations({"vflip": "all", "jpeg": [4, 1]})
        {'jpeg': [1, 4], 'vflip': [1]}
    """
    if declared is None:
        return {}
    if not isinstance(declared, Mapping):
        raise ConfigError(f"Expected `perturbations` as a mapping of names to severities, got {declared!r}.")
    return {name: _severities(name, declared[name]) for name in sorted(declared)}


def conditions_of(checked: Mapping[str, Sequence[int]]) -> tuple[Condition, ...]:
    """Return the conditions of checked perturbations, sorted, without the clean one.

    Example:
        >>> [condition.slice for condition in conditions_of({"jpeg": [1, 4]})]
        ['perturbation=jpeg,severity=1', 'perturbation=jpeg,severity=4']
    """
    return tuple(sorted(Condition(name, severity) for name, severities in checked.items() for severity in severities))


def _severities(name: str, wanted: Any) -> list[int]:
    found: Perturbation = PERTURBATIONS.get(name)
    if wanted == "all":
        return list(found.severities)
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
        raise ConfigError(f"Expected the severities of {name!r} as `all` or a list such as [1, 2], got {wanted!r}.")
    for severity in wanted:
        found.parameters(severity)
    if len(set(wanted)) != len(wanted):
        raise ConfigError(f"Expected each severity of {name!r} once, got {list(wanted)}.")
    return sorted(wanted)
