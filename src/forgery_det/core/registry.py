"""Lazy registries: a name maps to an import path, and is imported when it is asked for.

A registry is one dictionary in one file, so adding a thing is one line, and listing the names costs no import of torch.

Example:
    >>> codecs = Registry("codec", {"json": "json:JSONDecoder"})
    >>> codecs.names()
    ('json',)
    >>> codecs.get("json").__name__
    'JSONDecoder'
    >>> codecs.get("jsn")
    Traceback (most recent call last):
    ...
    forgery_det.core.errors.UnknownNameError: Unknown codec 'jsn': did you mean 'json'? Known: json.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from forgery_det.core.errors import UnknownNameError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the sentence part that offers the nearest known names.

    Example:
        >>> did_you_mean("difusion", ["diffusion", "gan"])
        "did you mean 'diffusion'? Known: diffusion, gan."
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    listed = f"Known: {', '.join(names) if names else '(none)'}."
    if not near:
        return listed
    return f"did you mean {' or '.join(repr(n) for n in near)}? {listed}"


class Registry:
    """Names to import paths of one kind of thing.

    Args:
        kind: What the things are called in error texts, in the singular.
        targets: name -> `package.module:attribute`.
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted, importing nothing."""
        return tuple(sorted(self._targets))

    def get(self, name: str) -> Any:
        """Import and return the thing called `name`.

        Raises:
            UnknownNameError: `name` is not registered; the text offers the nearest names.
        """
        if name not in self._targets:
            raise UnknownNameError(f"Unknown {self.kind} {name!r}: {did_you_mean(name, self._targets)}")
        module_name, attribute = self._targets[name].split(":")
        return getattr(importlib.import_module(module_name), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._targets)
