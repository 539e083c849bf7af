"""Plan: what `collect` would make, told before anything is fetched, asked for, paid or written.

Sources say what they know of their items (see `sources.outlook`); the recipe's own split rule places each item whose
group is known. An item whose group only its bytes can tell counts by the fractions of the hash, so those numbers are
expectations. What filters, guards and duplicates take away is not foreseen: the numbers are upper bounds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import silent
from forgery_det.core.types import SPLITS
from forgery_det.recipes.build import checked_tables
from forgery_det.recipes.gather import Opened, open_source
from forgery_det.recipes.generate.outlook import known_prompts
from forgery_det.recipes.load import load_recipe
from forgery_det.recipes.peers import RecipePeers
from forgery_det.recipes.prompt_sets import PromptSet
from forgery_det.recipes.recipe import AlignPolicy, Recipe, with_executor
from forgery_det.recipes.rows import resolve_fields
from forgery_det.recipes.sources.base import SourceContext, default_cache
from forgery_det.recipes.sources.outlook import Download, Expected, Outlook, hub_download, pinned_file
from forgery_det.recipes.split import hashed_split, rule_matches

_STORED_BYTES_PER_PIXEL = {"webp": 0.2, "jpeg": 0.25, "avif": 0.1, "png": 1.8}
_ASPECT = 1.4
"""Long side over short side of an ordinary picture."""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """The images of one source, generator and level.

    Args:
        source: Id of the source.
        generator: Of its images; empty where only reading can tell.
        level: Level of the prompts; empty where there is none.
        images: How many at most; None where only reading can tell.
        splits: Split -> number; empty where the number is not known.
        exact: The splits follow from known groups; otherwise they are expectations.
        done: Items that are there already, in the dataset folder or the job store.
        to_make: Items that a generator has to make; None where only reading can tell.
        seconds: How long they take one after the other; None where that is not known.
        usd: What they cost at most; None where that is not known.
        n_bytes: What the dataset and the cache grow by, roughly; None where that is not known.
    """

    source: str
    generator: str
    level: str
    images: int | None
    splits: Mapping[str, float]
    exact: bool
    done: int
    to_make: int | None
    seconds: float | None
    usd: float | None
    n_bytes: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What `collect` would do.

    Args:
        name: Name of the dataset.
        licence: Terms of the dataset as a whole.
        commercial_use: `yes`, `no` or `unknown`.
        rows: The images.
        texts: Prompt set -> prompts that a text model would still have to write; None where only reading can tell.
        downloads: What would be fetched, each once.
        budgets: Source -> images that one run makes at most.
    """

    name: str
    licence: str
    commercial_use: str
    rows: tuple[PlanRow, ...]
    texts: Mapping[str, int | None] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    budgets: Mapping[str, int] = field(default_factory=dict)


def plan(
    recipe: str | Path, out: Path, *, cache: Path | None = None, executor: Mapping[str, Any] | None = None
) -> Plan:
    """Return what `collect` with the same arguments would do; nothing is changed and nothing fetched.

    Args:
        recipe: A recipe file, its folder, or the name of a shipped recipe.
        out: Dataset folder; what it holds already counts as done.
        cache: Folder of downloads; None takes `$FORGERY_DET_CACHE` or `~/.cache/forgery-det`.
        executor: Where jobs would run; checked only.

    Raises:
        ConfigError: The recipe or a table breaks a rule.
        SourceError: A local file that the recipe names cannot be read.
    """
    loaded = with_executor(load_recipe(recipe), executor)
    tables = checked_tables(loaded)
    folder = (cache or default_cache()).expanduser()
    peers = _PlanPeers(loaded, Path(out), folder, silent)
    opened = []
    for spec in loaded.sources:
        context = SourceContext(spec.id, spec.folder, folder, silent, Path(out), peers)
        opened.append(open_source(loaded, spec, tables[spec.id], Path(out), context))
    for one in opened:
        one.steps.check()
    outlooks: dict[str, Outlook] = {}
    # Sources that build on others come after them, whatever their order in the recipe.
    for one in sorted(opened, key=lambda one: getattr(one.spec.parameters, "images", None) is not None):
        outlook = _with_prompts(loaded, one, _tabled(one, one.source.outlook()))
        outlooks[one.spec.id] = _with_inputs(one, outlook, outlooks)
    rows = [row for one in opened for row in _rows(loaded, one, outlooks[one.spec.id])]
    return Plan(
        loaded.name,
        loaded.licence,
        loaded.commercial_use,
        tuple(rows),
        {name: peers.to_write(name) for name, spec in loaded.prompt_sets.items() if spec.expand or spec.caption},
        tuple(dict.fromkeys([*_downloads(loaded, folder), *(d for one in outlooks.values() for d in one.downloads)])),
        {name: one.budget for name, one in outlooks.items() if one.budget is not None},
    )


class _PlanPeers(RecipePeers):
    """Gives prompts as far as they are known."""

    def prompt_set(self, name: str) -> PromptSet:
        if name not in self._recipe.prompt_sets:
            return super().prompt_set(name)  # whose error names the known ones
        if name not in self._sets:
            known = known_prompts(self._recipe.prompt_sets[name], self._out, self._cache)
            self._sets[name] = known or PromptSet(name, ())
        return self._sets[name]

    def to_write(self, name: str) -> int | None:
        """Return how many texts a model has to write for a set."""
        spec = self._recipe.prompt_sets[name]
        known = self.prompt_set(name)
        if known.prompts:
            return sum(prompt.text == "" for prompt in known.prompts)
        written = len(spec.levels) - (spec.caption is None)
        return None if spec.limit is None else spec.limit * written


def _tabled(one: Opened, outlook: Outlook) -> Outlook:
    """Return the outlook with what the annotation table knows: which items are wanted, and what they are."""
    if one.table is None:
        return outlook
    wanted = [key for key in one.table if one.wants(key)]
    known = {item.key: item for item in outlook.items}
    return replace(outlook, items=tuple(known.get(key, Expected(key)) for key in wanted), more=0)


def _with_prompts(recipe: Recipe, one: Opened, outlook: Outlook) -> Outlook:
    """Return the outlook of a source whose prompts cannot be read yet: as many as its set has at most."""
    given = one.spec.parameters
    spec = recipe.prompt_sets.get(getattr(given, "prompts", None) or "")
    if spec is None or spec.limit is None or outlook.more is not None or given.images is not None:
        return outlook
    count = spec.limit if given.limit is None else min(spec.limit, given.limit)
    by_level = {level: dict(outlook.fields) | {"prompt_level": level} for level in given.levels}
    items = [
        Expected(f"{level}/{index}", fields, usd=outlook.more_usd)
        for level, fields in by_level.items()
        for index in range(count * given.images_per_prompt)
    ]
    return replace(outlook, items=tuple(items), more=0)


def _with_inputs(one: Opened, outlook: Outlook, others: Mapping[str, Outlook]) -> Outlook:
    """Return the outlook of a source that reworks the images of another, as far as those are known."""
    given = one.spec.parameters
    inputs = others.get(getattr(given, "images", None) or "")
    if inputs is None:
        return outlook
    copies = given.images_per_prompt * (len(given.levels) if given.prompts is not None else 1)
    limit = given.limit
    items = []
    for item in inputs.items[:limit]:
        fields = dict(outlook.fields) | {name: item.fields[name] for name in ("source_id",) if name in item.fields}
        items += [Expected(f"{item.key}/{index}", fields, usd=outlook.more_usd) for index in range(copies)]
    more = None if inputs.more is None else inputs.more * copies
    if limit is not None:
        room = max(0, limit - len(inputs.items)) * copies
        more = room if more is None else min(more, room)
    return replace(outlook, items=tuple(items), more=more)


def _rows(recipe: Recipe, one: Opened, outlook: Outlook) -> Iterator[PlanRow]:
    gathered = _gathered(one.journal_path)
    groups: dict[tuple[str, str], list[tuple[Expected, Mapping[str, Any], int]]] = defaultdict(list)
    resolved: dict[int, Mapping[str, Any]] = {}
    for item in outlook.items:
        # Many items of a source share one mapping, which says the same of all of them where there is no table.
        if one.table is not None or id(item.fields) not in resolved:
            resolved[id(item.fields)] = _fields(one, item)
        fields = resolved[id(item.fields)]
        annotation = one.annotation(item.key)
        pieces = one.spec.crops.count * max(1, len(annotation.boxes) if annotation else 1)
        generator = str(fields.get("generator") or "")
        done = item if item.done or item.key not in gathered else replace(item, done=True)
        groups[generator, str(fields.get("prompt_level") or "")].append((done, fields, pieces))
    for (generator, level), members in sorted(groups.items()):
        yield _known_row(recipe, one.spec.id, generator, level, members, outlook)
    if outlook.more is None or outlook.more > 0:
        yield _unknown_row(recipe, one, outlook)


def _known_row(
    recipe: Recipe,
    source: str,
    generator: str,
    level: str,
    members: Sequence[tuple[Expected, Mapping[str, Any], int]],
    outlook: Outlook,
) -> PlanRow:
    splits, exact = dict.fromkeys(SPLITS, 0.0), True
    placed: dict[int, tuple[Mapping[str, float], bool]] = {}
    for _, fields, pieces in members:
        if id(fields) not in placed:
            placed[id(fields)] = _split(recipe, fields)
        shares, known = placed[id(fields)]
        exact = exact and known
        for split, share in shares.items():
            splits[split] += share * pieces
    left = [item for item, _, _ in members if not item.done] if outlook.makes else []
    images = sum(pieces for _, _, pieces in members)
    return PlanRow(
        source, generator, level, images, splits, exact,
        done=sum(item.done for item, _, _ in members),
        to_make=len(left),
        seconds=_total([item.seconds for item in left]),
        usd=_total([item.usd for item in left]),
        n_bytes=_bytes(recipe.align, images, len(left), outlook),
    )  # fmt: skip


def _unknown_row(recipe: Recipe, one: Opened, outlook: Outlook) -> PlanRow:
    fields = _fields(one, Expected("any", outlook.fields))
    images = None if outlook.more is None else outlook.more * one.spec.crops.count
    shares, _ = _split(recipe, {name: value for name, value in fields.items() if name != "source_id"})
    to_make = outlook.more if outlook.makes else 0
    return PlanRow(
        one.spec.id,
        str(fields.get("generator") or ""),
        "",
        images,
        {} if images is None else {split: shares.get(split, 0.0) * images for split in SPLITS},
        exact=False,
        done=len(_gathered(one.journal_path)),
        to_make=to_make,
        seconds=0.0 if to_make == 0 else None,
        usd=None if to_make is None or outlook.more_usd is None else to_make * outlook.more_usd,
        n_bytes=None if images is None else _bytes(recipe.align, images, to_make or 0, outlook),
    )


def _fields(one: Opened, item: Expected) -> Mapping[str, Any]:
    try:
        return resolve_fields(one.spec, item.key, item.fields, one.annotation(item.key))
    except ConfigError:
        # The source itself will say what is missing here; `checked_tables` has checked all others.
        return dict(one.spec.fields) | dict(item.fields)


def _split(recipe: Recipe, fields: Mapping[str, Any]) -> tuple[Mapping[str, float], bool]:
    """Return split -> share of an item, and whether that is certain."""
    if "split" in fields:
        return {fields["split"]: 1.0}, True
    row = {"generator": "", "paradigm": "", "label": None, "release_date": None} | dict(fields)
    for rule in recipe.split.rules:
        if rule_matches(rule, row):
            return {rule.split: 1.0}, True
    if "source_id" in fields:
        return {hashed_split(str(fields["source_id"]), recipe.split): 1.0}, True
    return recipe.split.fractions, False


def _gathered(path: Path) -> set[str]:
    """Return the keys that a journal has images of, reading only."""
    keys: set[str] = set()
    if path.is_file():
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line).get("record")
            except ValueError:
                break
            if record is not None and record["pieces"]:
                keys.add(record["key"])
    return keys


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _bytes(align: AlignPolicy | None, images: int, to_make: int, outlook: Outlook) -> float | None:
    if align is None or align.short_side_px is None or outlook.kept_bytes is None:
        return None
    each = align.short_side_px**2 * _ASPECT * _STORED_BYTES_PER_PIXEL[align.codec]
    return each * images + outlook.kept_bytes * to_make


def _downloads(recipe: Recipe, cache: Path) -> Iterator[Download]:
    """Yield what prompts need: their package, hub datasets and local text models."""
    if recipe.prompts is not None and hasattr(recipe.prompts.parameters, "sha256"):
        given = recipe.prompts.parameters
        yield pinned_file(cache, given.file, given.sha256, given.size_bytes)
    for spec in recipe.prompt_sets.values():
        if spec.kind == "prompt_dataset" and not spec.parameters.data_files:
            yield Download(f"{spec.parameters.dataset} (streamed)", None, None)
        for writer in (spec.caption, spec.expand):
            if writer is not None and writer.kind != "openai_chat":
                yield hub_download(writer.parameters.model, "models")
