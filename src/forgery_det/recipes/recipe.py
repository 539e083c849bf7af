"""The recipe: what a dataset is made of, as frozen dataclasses that mirror `recipe.yaml` (see `load`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from forgery_det.recipes.prompt_sets import PromptSetSpec


@dataclass(frozen=True, slots=True)
class CropPolicy:
    """How many pieces of one original become images.

    Args:
        count: Number of crops an original.
        size_px: Side of the square crops; None keeps the whole image.
        short_side_px: The short side is brought to this length before cropping; None crops at native size.
    """

    count: int = 1
    size_px: int | None = None
    short_side_px: int | None = None


@dataclass(frozen=True, slots=True)
class AlignPolicy:
    """The one size and codec of every stored image, real and generated alike.

    Args:
        short_side_px: Length of the short side after alignment; None keeps the size.
        max_side_px: Longest side allowed after alignment; None sets no limit.
        kernel: Resampling kernel of Pillow, lower case.
        codec: Codec of the stored file, lower case.
        quality: Quality of a lossy codec, in [1, 100]; None for a lossless file.
    """

    short_side_px: int | None
    max_side_px: int | None
    kernel: str = "lanczos"
    codec: str = "webp"
    quality: int | None = 90


@dataclass(frozen=True, slots=True)
class FilterPolicy:
    """Which originals are refused.

    Args:
        min_side_px: Smallest short side.
        max_aspect: Largest long side over short side; None sets no limit.
        max_frames: Most frames of an animation; None sets no limit.
        min_std: Smallest standard deviation of the grey values (0 to 255); refuses flat images. None sets no limit.
    """

    min_side_px: int = 64
    max_aspect: float | None = None
    max_frames: int | None = 1
    min_std: float | None = 4.0


@dataclass(frozen=True, slots=True)
class DedupPolicy:
    """Which images count as the same.

    Args:
        exact: Drop images with equal bytes.
        phash_distance: Drop images whose perceptual hashes differ in at most this many of 64 bits; None never does.
    """

    exact: bool = True
    phash_distance: int | None = 4


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Sends rows that meet every given condition to one split; an empty condition is met by all rows.

    Args:
        split: `train`, `val` or `test`.
        generator: Generators that match.
        paradigm: Paradigms that match.
        label: Label that matches.
        released_from: Earliest release date of the generator.
        released_before: Release dates must lie before this day.
    """

    split: str
    generator: tuple[str, ...] = ()
    paradigm: tuple[str, ...] = ()
    label: int | None = None
    released_from: date | None = None
    released_before: date | None = None


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """Which split a row belongs to: the first rule that matches, otherwise the hash of its `source_id`.

    Args:
        fractions: Split -> share of the hash range; the shares add up to 1.
        salt: Text hashed with the `source_id`, so that two recipes may split alike or apart on purpose.
        rules: Rules in order; the first match wins.
    """

    fractions: Mapping[str, float]
    salt: str
    rules: tuple[SplitRule, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """One source of a recipe: where its images come from and what is known about them.

    Args:
        id: Name of the source, unique within the recipe; the manifest's `source`.
        kind: Name in the source registry.
        parameters: Instance of the kind's `Parameters`.
        label: 1 generated, 0 real; None where a table or the source says it for each image.
        licence: Licence of the images; None where a table or the source says it for each image.
        citation: Whom to name for these images.
        fields: Constant item fields; a table or the source may say otherwise for single images.
        annotations: Annotation table, None where there is none.
        crops: How many pieces of each original become images.
        folder: Relative paths in the parameters start here: the folder of the recipe file that names the source.
    """

    id: str
    kind: str
    parameters: Any
    label: int | None
    licence: str | None
    citation: str
    fields: Mapping[str, Any]
    annotations: Path | None
    crops: CropPolicy
    folder: Path


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """Where the `prompt_ref`s of the annotation tables lie.

    Args:
        format: Name in the registry of prompt formats.
        kind: Name in the source registry.
        parameters: Instance of the kind's `Parameters`.
        folder: Relative paths in the parameters start here.
    """

    format: str
    kind: str
    parameters: Any
    folder: Path


@dataclass(frozen=True, slots=True)
class Recipe:
    """A dataset's recipe.

    Args:
        name: Name of the dataset.
        description: What is in it and what for.
        licence: The terms under which the dataset as a whole may be used.
        commercial_use: `yes`, `no` or `unknown`.
        sources: Where the images come from.
        split: Which split each row belongs to.
        align: The one size and codec; None stores the original bytes, which only joins of finished datasets should.
        filter: Which originals are refused.
        dedup: Which images count as the same.
        prompts: Where prompts lie, None where no table has a `prompt_ref`.
        citation: How to cite the dataset.
        seed: Recorded with the dataset; every step is a function of the recipe and this number.
        path: The file it was read from.
        digest: sha256 of the recipe's content, its annotation tables and its files of prompts, wherever they lie.
        prompt_sets: Prompts that generating sources share, by name.
    """

    name: str
    description: str
    licence: str
    commercial_use: str
    sources: tuple[SourceSpec, ...]
    split: SplitPolicy
    align: AlignPolicy | None
    filter: FilterPolicy
    dedup: DedupPolicy
    prompts: PromptSpec | None
    citation: str
    seed: int
    path: Path
    digest: str
    prompt_sets: Mapping[str, PromptSetSpec] = field(default_factory=dict)


def with_executor(recipe: Recipe, executor: Mapping[str, Any] | None) -> Recipe:
    """Return the recipe with another executor for all sources that have one; None changes nothing.

    The digest stays: where jobs run decides nothing about the images.

    Args:
        recipe: The recipe.
        executor: `kind` and its options.
    """
    if executor is None:
        return recipe
    sources = tuple(
        replace(spec, parameters=replace(spec.parameters, executor=executor))
        if hasattr(spec.parameters, "executor")
        else spec
        for spec in recipe.sources
    )
    return replace(recipe, sources=sources)
