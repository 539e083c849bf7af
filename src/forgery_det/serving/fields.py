"""Read JSON field by field: a wrong type or value is an error that says what was expected, what came, and where."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from forgery_det.serving.errors import BundleError

MAX_DOCUMENT_BYTES = 16 * 2**20
"""A description larger than this is not one of ours, and is not read into memory."""

T = TypeVar("T")
_Test = Callable[[Any], bool]


def parse_document(data: bytes, where: str) -> Fields:
    """Parse a JSON object; NaN and infinities are refused, because JSON has none.

    Raises:
        BundleError: Not a JSON object; `where` is named.

    Example:
        >>> parse_document(b'{"name": "x"}', "bundle.json").text("name")
        'x'
        >>> parse_document(b'{"name": 3}', "bundle.json").text("name")
        Traceback (most recent call last):
        ...
        forgery_det.serving.errors.BundleError: Expected `name` to be a text, got 3 (bundle.json).
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"the number {constant}, which JSON does not have")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"Expected JSON, got {error} ({where}).") from error
    if not isinstance(value, dict):
        raise BundleError(f"Expected a JSON object, got {type(value).__name__} ({where}).")
    return Fields(value, where)


@dataclass(frozen=True, slots=True)
class Fields:
    """A JSON object whose fields are checked as they are read.

    Args:
        values: The object.
        where: File and place, named in errors.
        path: Names that lead to this object, each followed by a dot.
    """

    values: Mapping[str, Any]
    where: str
    path: str = ""

    def fail(self, name: str, expected: str) -> NoReturn:
        """Raise the error about the field `name`."""
        got = _short(self.values[name]) if name in self.values else "nothing"
        raise BundleError(f"Expected `{self.path}{name}` to be {expected}, got {got} ({self.where}).")

    def checked(self, name: str, expected: str, test: _Test) -> Any:
        """Return the field `name`, which must pass `test`."""
        if name not in self.values or not test(self.values[name]):
            self.fail(name, expected)
        return self.values[name]

    def text(self, name: str) -> str:
        """Return a text that is not empty."""
        return str(self.checked(name, "a text", lambda value: isinstance(value, str) and bool(value)))

    def whole(self, name: str, at_least: int = 1) -> int:
        """Return a whole number of at least `at_least`."""
        return int(self.checked(name, f"a whole number of at least {at_least}", lambda v: _is_whole(v, at_least)))

    def number(self, name: str) -> float:
        """Return a finite number."""
        return float(self.checked(name, "a finite number", _is_number))

    def flag(self, name: str) -> bool:
        """Return true or false."""
        return bool(self.checked(name, "true or false", lambda value: isinstance(value, bool)))

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """Return None where the field is absent or null, else what `read` makes of it."""
        return None if self.values.get(name) is None else read(name)

    def fields(self, name: str) -> Fields:
        """Return a JSON object."""
        value = self.checked(name, "a JSON object", lambda value: isinstance(value, dict))
        return Fields(value, self.where, f"{self.path}{name}.")

    def items(self, name: str) -> Sequence[Any]:
        """Return a JSON list."""
        return list(self.checked(name, "a JSON list", lambda value: isinstance(value, list)))

    def objects(self, name: str) -> Sequence[Fields]:
        """Return a JSON list of objects."""
        found = []
        for index, value in enumerate(self.items(name)):
            if not isinstance(value, dict):
                self.fail(name, "a list of JSON objects")
            found.append(Fields(value, self.where, f"{self.path}{name}[{index}]."))
        return found


def _is_number(value: Any) -> bool:
    """Tell whether `value` is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
