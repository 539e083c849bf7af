"""Peers: what the parts of a recipe give to the sources that build on them.

A generating source takes prompts from a prompt set, and images from another source. It sees originals, before filter
and alignment: a reconstruction of an aligned image would carry traces that its original does not have. A prompt set
that describes real images sees the aligned ones, which are what the dataset shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import sha256_bytes, sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import ProgressSink
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.gather import Opened
from forgery_det.recipes.prompt_sets import ContentImage, PromptContext, PromptSet
from forgery_det.recipes.recipe import Recipe
from forgery_det.recipes.rows import resolve_fields, source_group
from forgery_det.recipes.sources.base import Original, Skip
from forgery_det.recipes.work import Record

Records = Callable[[str], Mapping[str, Record]]
"""`source id -> key -> record`; gathers the source first where that is still to be done."""


class RecipePeers:
    """The parts of one recipe during one build.

    Args:
        recipe: The recipe.
        out: Dataset folder.
        cache: Folder of downloads.
        progress: Told how far a prompt set is.
    """

    def __init__(self, recipe: Recipe, out: Path, cache: Path, progress: ProgressSink) -> None:
        self._recipe = recipe
        self._out = out
        self._cache = cache
        self._progress = progress
        self._opened: Mapping[str, Opened] = {}
        self._records: Records = lambda _source_id: {}
        self._sets: dict[str, PromptSet] = {}

    def connect(self, opened: Sequence[Opened], records: Records) -> None:
        """Give the sources, which need the peers to be opened, and the records of the build."""
        self._opened = {one.spec.id: one for one in opened}
        self._records = records

    def prompt_sets(self) -> Mapping[str, PromptSet]:
        """Return the prompt sets that were read so far, by name."""
        return dict(self._sets)

    def prompt_set(self, name: str) -> PromptSet:
        """Return a prompt set, reading and expanding it if need be.

        Raises:
            ConfigError: The recipe has no such set.
            SourceError: The set cannot be read.
        """
        # Only here: reading prompts is no business of recipes without them.
        from forgery_det.recipes.prompting.read import read_prompt_set

        specs = self._recipe.prompt_sets
        if name not in specs:
            raise ConfigError(f"Unknown prompt set {name!r} ({self._recipe.path}): {did_you_mean(name, specs)}")
        if name not in self._sets:
            context = PromptContext(self._out, self._cache, self._content_images, self._progress)
            self._sets[name] = read_prompt_set(specs[name], context)
        return self._sets[name]

    def identity(self, source_id: str) -> Mapping[str, Any]:
        """Return what decides the items of a source and their fields, as JSON values."""
        one = self._one(source_id)
        table = one.spec.annotations
        return {
            "source": [source_id, one.spec.kind, one.source.identity()],
            "fields": {name: str(value) for name, value in one.spec.fields.items()},
            "table": None if table is None else sha256_file(table),
        }

    def originals(self, source_id: str, skip: Skip) -> Iterator[Original]:
        """Yield the originals that the table wants, in the order of the source."""
        one = self._one(source_id)

        def unwanted(key: str, stamp: str) -> bool:
            return not one.wants(key) or skip(key, stamp)

        for item in one.source.items(unwanted):
            if not one.wants(item.key):
                continue
            if item.data is None:
                yield Original(item, {})
                continue
            fields = {"source_id": source_group(sha256_bytes(item.data))}
            yield Original(item, fields | resolve_fields(one.spec, item.key, item.fields, one.annotation(item.key)))

    def _one(self, source_id: str) -> Opened:
        if source_id not in self._opened:
            hint = did_you_mean(source_id, self._opened)
            raise ConfigError(f"Unknown source {source_id!r} ({self._recipe.path}: images): {hint}")
        return self._opened[source_id]

    def _content_images(self, source_id: str) -> Sequence[ContentImage]:
        from forgery_det.recipes.prompting.images import content_images

        one = self._one(source_id)
        return content_images(one.spec, self._records(source_id), one.table, self._out)


def paired_sources(recipe: Recipe) -> frozenset[str]:
    """Return the ids of the sources that others build on; their images get a `content_id` where none is given."""
    images = {getattr(spec.parameters, "images", None) for spec in recipe.sources}
    described = {getattr(spec.parameters, "images", None) for spec in recipe.prompt_sets.values()}
    return frozenset(name for name in images | described if isinstance(name, str))
