"""What the parts of a recipe name: every prompt set, source and mask that a generating source uses must be there.

Checked when the recipe is read, before anything is fetched or paid for.
"""

from __future__ import annotations

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.recipe import Recipe


def check_references(recipe: Recipe) -> None:
    """Check what generating sources and prompt sets refer to.

    Raises:
        ConfigError: A prompt set, a level of it, or a source is not in the recipe, or a source is made of itself.
    """
    for spec in recipe.sources:
        where = f"{recipe.path}: source {spec.id!r}"
        if spec.kind != "generate":
            continue
        parameters = spec.parameters
        if parameters.prompts is not None:
            _check_prompts(recipe, parameters.prompts, parameters.levels, where)
        if parameters.images is not None:
            _check_source(recipe, parameters.images, f"{where}, images", spec.id)
        if parameters.mask is not None and parameters.mask.images is not None:
            _check_source(recipe, parameters.mask.images, f"{where}, mask.images", spec.id)
        if spec.licence is None and spec.annotations is None:
            raise ConfigError(f"Expected the key `licence` of what is generated, got none ({where}).")
    for name, described in recipe.prompt_sets.items():
        images = getattr(described.parameters, "images", None)
        if isinstance(images, str):
            _check_source(recipe, images, f"{recipe.path}: prompt_sets.{name}, images", None)


def _check_prompts(recipe: Recipe, name: str, levels: tuple[str, ...], where: str) -> None:
    if name not in recipe.prompt_sets:
        hint = did_you_mean(name, recipe.prompt_sets)
        raise ConfigError(f"Unknown prompt set {name!r} ({where}, prompts): {hint}")
    known = recipe.prompt_sets[name].levels
    for level in levels:
        if level not in known:
            raise ConfigError(
                f"Unknown level {level!r} of prompt set {name!r} ({where}, levels): Known: {', '.join(known)}."
            )


def _check_source(recipe: Recipe, source_id: str, where: str, own: str | None) -> None:
    ids = [spec.id for spec in recipe.sources if spec.id != own]
    if source_id not in ids:
        raise ConfigError(f"Unknown source {source_id!r} ({where}): {did_you_mean(source_id, ids)}")
