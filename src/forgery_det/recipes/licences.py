"""Licences that forbid a use: a recipe marked `commercial_use: yes` with something non-commercial in it is an error.

What is looked for is the forbidding word of the licence's name: `NC` in a Creative Commons name or an SPDX id,
`non-commercial`, `research only`. A licence that is unknown forbids nothing that we know of; whether it allows the use
is for its user to find out. This is a guard against a slip, not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.recipe import Recipe

_FORBIDDING = re.compile(
    r"\bnc\b|\bnon[\s_-]?commercial|\b(?:research|academic|evaluation)(?:\s+use)?[\s_-]only\b|\bpersonal[\s_-]use\b",
    re.IGNORECASE,
)
COMMERCIAL = "yes"


def forbids_commerce(licence: str) -> bool:
    """Return whether the name of a licence says that it forbids commercial use.

    Example:
        >>> [forbids_commerce(name) for name in ("CC-BY-NC-SA-4.0", "FLUX.1 [dev] Non-Commercial License", "ncsa")]
        [True, True, False]
        >>> [forbids_commerce(name) for name in ("Apache-2.0", "CC BY-SA 4.0", "for research only")]
        [False, False, True]
    """
    return _FORBIDDING.search(licence) is not None


def check_recipe_licences(recipe: Recipe) -> None:
    """Check what a recipe itself says: its own licence, its sources' and its generators'.

    Raises:
        ConfigError: It is marked commercial, and one of them forbids that; all of them are named.
    """
    check_licences(recipe, [("the recipe", recipe.licence), *_of_sources(recipe)])


def check_licences(recipe: Recipe, stated: Iterable[tuple[str, str]]) -> None:
    """Check licences against the use that a recipe is marked for.

    Args:
        recipe: The recipe.
        stated: Whose licence it is, and the licence.

    Raises:
        ConfigError: The recipe is marked commercial, and a licence forbids that.
    """
    if recipe.commercial_use != COMMERCIAL:
        return
    forbidding = dict.fromkeys(f"{whose} ({licence})" for whose, licence in stated if forbids_commerce(licence))
    if forbidding:
        raise ConfigError(
            f"Expected licences that allow commercial use, as `commercial_use` is {COMMERCIAL!r}, got "
            f"{', '.join(forbidding)} ({recipe.path}): leave them out, or set `commercial_use: no`."
        )


def _of_sources(recipe: Recipe) -> Iterator[tuple[str, str]]:
    for spec in recipe.sources:
        if spec.licence is not None:
            yield f"source {spec.id!r}", spec.licence
        if hasattr(spec.parameters, "resolved"):
            card = spec.parameters.resolved().card
            if card is not None:
                told = card.licence or "licence unknown"
                if card.commercial_use == "no" and not forbids_commerce(told):
                    told = f"{told}, non-commercial"
                yield f"generator {spec.parameters.resolved().name!r} of source {spec.id!r}", told
