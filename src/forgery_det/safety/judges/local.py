"""What the judges that run on this machine through transformers share: where the weights lie, and loading them whole.

A model whose file lacks a layer loads with random weights there and a warning; a judge of random weights gives random
verdicts. So a layer without weights is an error here.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from forgery_det.core.errors import SourceError
from forgery_det.recipes.generate.local_model import pick_device, quiet_libraries
from forgery_det.recipes.prompting.local_model import local_or_hub, version_of

T = TypeVar("T")


class Loaded(Generic[T]):
    """A value that is built at the first use, once, whichever thread asks first."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._value: list[T] = []

    def get(self) -> T:
        """Return the value."""
        with self._lock:
            if not self._value:
                self._value.append(self._build())
            return self._value[0]


def model_version(model: str, revision: str | None, folder: Path) -> str:
    """Return a model's name with its revision, or with a hash of its files where it is a folder."""
    return f"{model} {version_of(model, revision, folder) or 'newest revision'}"


def loaded_commit(network: Any) -> dict[str, str]:
    """Return the hub's commit that a model was loaded from, as an entry of `raw`; nothing for a folder."""
    commit = getattr(network.config, "_commit_hash", None)
    return {"commit": commit} if commit else {}


def load_model(
    judge: str, model: str, revision: str | None, folder: Path, device: str | None, parts: tuple[tuple[str, str], ...],
    **settings: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Return what `from_pretrained` of each part gives, models on their device and in evaluation mode.

    Args:
        judge: Name of the judge, for errors.
        model: Folder, relative to `folder`, or name on the hub.
        revision: Commit or tag on the hub; None takes the newest.
        folder: The plan's folder.
        device: As torch names it; None takes the first GPU where there is one.
        parts: Package and class of each part; the last one is the model.
        settings: Passed on with the model.

    Raises:
        SourceError: A package is missing, the model cannot be had, or its file lacks weights.
    """
    for package, _ in parts:
        if importlib.util.find_spec(package.split(".")[0]) is None:
            raise SourceError(
                f"Expected the package `{package}` for judge {judge!r}, got none: install `forgery-det[generate]`."
            )
    source = local_or_hub(model, folder)
    found = []
    try:
        with quiet_libraries():
            for package, name in parts[:-1]:
                found.append(getattr(importlib.import_module(package), name).from_pretrained(source, revision=revision))
            package, name = parts[-1]
            network, facts = getattr(importlib.import_module(package), name).from_pretrained(
                source, revision=revision, output_loading_info=True, **settings
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        said = " ".join(str(error).split())[:500]
        raise SourceError(
            f"Expected to load {model!r} (revision {revision or 'not named'}) for judge {judge!r}, got "
            f"{type(error).__name__}: {said}. Is it a folder or a hub id, is it cached or the network reachable, and "
            "has its licence been accepted?"
        ) from error
    _check_whole(facts, model, judge)
    return (*found, network.to(pick_device(device)).eval())


def _check_whole(facts: Mapping[str, Any], model: str, judge: str) -> None:
    lacking = sorted([*map(str, facts.get("missing_keys", ())), *map(str, facts.get("mismatched_keys", ()))])
    if lacking:
        raise SourceError(
            f"Expected the weights of all layers in {model!r}, got none that fit for {len(lacking)} of them, the first "
            f"{lacking[0]!r} (judge {judge!r}). A judge with random layers gives random verdicts."
        )
