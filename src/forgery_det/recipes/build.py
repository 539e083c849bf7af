"""Build: a recipe becomes a dataset folder, and the same command goes on after any interruption.

    sources -> decode -> filter -> crop -> align -> images/ | de-duplicate -> split -> tables

Everything left of the bar is done once an item and remembered in a journal (see `work`); everything right of it is
quick and done anew. So a build that was killed at any point, started again, ends in the same bytes as one that was not.

Rules for a folder that is already there:
- The tables are staged, then renamed into place; `dataset.json` goes first and comes last, so a folder with a
  `dataset.json` is a finished dataset.
- The same recipe again changes nothing. A changed recipe of the same name rebuilds what the change touches; the old
  dataset stays readable until the new one is whole. Images that no row names are removed then.
- A dataset of another name, or a folder with foreign files, is refused: nothing of it is touched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import write_json
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.recipes.annotations import Annotation, read_annotations
from forgery_det.recipes.describe import DATASET_NAME
from forgery_det.recipes.finish import Contents, remove_unnamed, write_tables
from forgery_det.recipes.gather import Opened, gather, open_source
from forgery_det.recipes.licences import check_licences
from forgery_det.recipes.load import load_recipe
from forgery_det.recipes.peers import RecipePeers, paired_sources
from forgery_det.recipes.prompt_sets import PromptSet
from forgery_det.recipes.prompting.journal import is_prompt_journal
from forgery_det.recipes.prompts import read_prompts
from forgery_det.recipes.recipe import Recipe, with_executor
from forgery_det.recipes.rows import Candidate, Refused, build_rows, resolve_fields
from forgery_det.recipes.select import with_splits, without_duplicates
from forgery_det.recipes.shards import StoredImages, checked_shard_bytes, in_layout
from forgery_det.recipes.sources.base import SourceContext, default_cache
from forgery_det.recipes.sources.downloads import find_cached
from forgery_det.recipes.sources.registry import SOURCES
from forgery_det.recipes.split import check_split_policy
from forgery_det.recipes.work import WORK_NAME, Record, exclusive


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What `collect` did.

    Args:
        dataset: The dataset folder.
        name: Name of the dataset.
        n_images: Rows of the manifest.
        counts: Split -> label -> number of images.
        refused: Reason -> number of entries in the quarantine.
        changed: False when the dataset was already there, unchanged.
    """

    dataset: Path
    name: str
    n_images: int
    counts: Mapping[str, Mapping[int, int]]
    refused: Mapping[str, int]
    changed: bool


def collect(
    recipe: str | Path,
    out: Path,
    *,
    cache: Path | None = None,
    shard_mb: float | None = None,
    executor: Mapping[str, Any] | None = None,
    progress: ProgressSink = silent,
) -> CollectSummary:
    """Build or resume a dataset.

    Args:
        recipe: A recipe file, its folder, or the name of a shipped recipe.
        out: Dataset folder; made if absent.
        cache: Folder of downloads; None takes `$FORGERY_DET_CACHE` or `~/.cache/forgery-det`.
        shard_mb: Largest size of a tar shard in MB (1,000,000 bytes); None stores each image as a file.
        executor: Where the jobs of generating sources run, `kind` and its options; None leaves it to the recipe.
        progress: Told how far downloads and images are.

    Raises:
        ConfigError: The recipe or an annotation table breaks a rule, `out` is something else, or another process is at
            work there.
        SourceError: A source cannot be reached or does not hold what the recipe says; what came so far is kept.
    """
    loaded = with_executor(load_recipe(recipe), executor)
    out = Path(out)
    _check_folder(loaded, out)
    shard_bytes = None if shard_mb is None else checked_shard_bytes(shard_mb)
    tables = checked_tables(loaded)
    with exclusive(out):
        write_json(out / WORK_NAME / "building.json", {"name": loaded.name})
        folder = (cache or default_cache()).expanduser()
        try:
            contents = _contents(loaded, tables, out, folder, progress)
        except SourceError as error:
            raise SourceError(f"{error}{_also_absent(loaded, folder)}") from error
        check_licences(loaded, [(f"images of source {one.source!r}", one.row["licence"]) for one, _ in contents.placed])
        contents = replace(contents, placed=in_layout(contents.placed, out, shard_bytes))
        manifest, changed = write_tables(loaded, contents, out)
        remove_unnamed(manifest, out)
    return _summary(loaded, manifest, contents, changed, out)


def _check_folder(recipe: Recipe, out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"Expected a folder for the dataset, got the file {out}.")
    for path in (out / DATASET_NAME, out / WORK_NAME / "building.json"):
        if path.is_file():
            name = json.loads(path.read_text(encoding="utf-8")).get("name")
            if name != recipe.name:
                raise ConfigError(
                    f"Expected a new folder or dataset {recipe.name!r}, got dataset {name!r} in {out}: choose another "
                    "`--out` or delete it."
                )
            return
    foreign = sorted(path.name for path in out.iterdir() if path.name != WORK_NAME)
    if foreign:
        raise ConfigError(
            f"Expected a new or empty folder, got {out} with {foreign[0]!r} in it: choose another `--out`."
        )


def checked_tables(recipe: Recipe) -> dict[str, dict[str, Annotation] | None]:
    """Read the annotation tables and check whatever needs no image, before anything is downloaded."""
    check_split_policy(recipe.split)
    tables: dict[str, dict[str, Annotation] | None] = {}
    for spec in recipe.sources:
        table = None
        complete = not SOURCES.get(spec.kind).gives_fields
        if spec.annotations is None and complete:
            resolve_fields(spec, "any", {}, None)
        if spec.annotations is not None:
            table = read_annotations(spec.annotations, getattr(spec.parameters, "package", None))
            kept = {key: annotation for key, annotation in table.items() if annotation.drop_reason is None}
            if complete:
                for key, annotation in kept.items():
                    resolve_fields(spec, key, {}, annotation)
            if recipe.prompts is None and any(annotation.prompt_ref for annotation in kept.values()):
                raise ConfigError(
                    f"Expected the key `prompts` where a table has a `prompt_ref`, got none ({recipe.path}; "
                    f"{spec.annotations.name})."
                )
        tables[spec.id] = table
    return tables


def _contents(
    recipe: Recipe,
    tables: Mapping[str, dict[str, Annotation] | None],
    out: Path,
    cache: Path,
    progress: ProgressSink,
) -> Contents:
    peers = RecipePeers(recipe, out, cache, progress)
    opened = [
        open_source(
            recipe, spec, tables[spec.id], out, SourceContext(spec.id, spec.folder, cache, progress, out, peers)
        )
        for spec in recipe.sources
    ]
    for one in opened:
        one.steps.check()
    prompts = read_prompts(recipe.prompts, _prompt_refs(tables), out, cache, progress)
    forget: Mapping[str, set[str]] = {}
    while True:
        records = _gather_all(opened, peers, out, forget, progress)
        contents = _selected(recipe, opened, records, prompts, peers.prompt_sets())
        if forget := _lost(contents, out):
            # Images of rows that once went as duplicates were removed; a changed recipe may need them again.
            continue
        _remove_stale_work(opened, out)
        return contents


def _gather_all(
    opened: Sequence[Opened],
    peers: RecipePeers,
    out: Path,
    forget: Mapping[str, set[str]],
    progress: ProgressSink,
) -> dict[str, dict[str, Record]]:
    """Gather every source; one that a prompt set describes is gathered when that set is read, if not before."""
    by_id = {one.spec.id: one for one in opened}
    records: dict[str, dict[str, Record]] = {}
    begun: list[str] = []

    def gathered(source_id: str) -> dict[str, Record]:
        if source_id not in records:
            if source_id in begun:
                circle = " -> ".join([*begun[begun.index(source_id) :], source_id])
                raise ConfigError(f"Expected prompts that describe images made without them, got a circle: {circle}.")
            begun.append(source_id)
            records[source_id] = gather(by_id[source_id], out, forget.get(source_id, set()), progress)
        return records[source_id]

    peers.connect(opened, gathered)
    for source_id in by_id:
        gathered(source_id)
    return records


def _selected(
    recipe: Recipe,
    opened: Sequence[Opened],
    records: Mapping[str, dict[str, Record]],
    prompts: Mapping[str, str],
    prompt_sets: Mapping[str, PromptSet],
) -> Contents:
    candidates: list[Candidate] = []
    refused = [
        Refused(f"prompts:{name}", one.key, one.reason, one.detail, None)
        for name, prompt_set in prompt_sets.items()
        for one in prompt_set.refused
    ]
    paired = paired_sources(recipe)
    for one in opened:
        found, gone = build_rows(
            one.spec, records[one.spec.id], one.table, prompts, recipe.name, paired=one.spec.id in paired
        )
        candidates += found
        refused += gone
    candidates.sort(key=lambda candidate: candidate.order)
    kept, copies = without_duplicates(candidates, recipe.dedup)
    placed, straddling = with_splits(kept, recipe.split)
    refused += copies + straddling
    if not placed:
        reasons = dict(Counter(entry.reason for entry in refused))
        raise SourceError(f"Expected images, got none: all were refused ({reasons}).")
    refused.sort(key=lambda entry: (entry.source, entry.key, entry.reason))
    return Contents(placed, refused, tuple(prompt_sets.values()))


def _also_absent(recipe: Recipe, cache: Path) -> str:
    """Return the pinned files that the cache lacks, so that they can be fetched in one go; empty for one or none."""
    parameters = [] if recipe.prompts is None else [recipe.prompts.parameters]
    parameters += [spec.parameters for spec in recipe.sources]
    pinned = [(one.file, one.sha256) for one in parameters if hasattr(one, "sha256") and hasattr(one, "file")]
    absent = [file for file, sha256 in pinned if find_cached(cache, file, sha256) is None]
    return f" Not in the cache yet: {', '.join(absent)}." if len(absent) > 1 else ""


def _prompt_refs(tables: Mapping[str, dict[str, Annotation] | None]) -> set[str]:
    annotations = [annotation for table in tables.values() for annotation in (table or {}).values()]
    return {one.prompt_ref for one in annotations if one.prompt_ref and one.drop_reason is None}


def _lost(contents: Contents, out: Path) -> dict[str, set[str]]:
    """Return source -> keys of the rows whose image is not in the folder, or is damaged."""
    lost: dict[str, set[str]] = {}
    stored = StoredImages(out)
    for candidate, _ in contents.placed:
        if stored.find(candidate.row, candidate.n_bytes) is None:
            lost.setdefault(candidate.source, set()).add(candidate.key)
    return lost


def _remove_stale_work(opened: Sequence[Opened], out: Path) -> None:
    used = {one.journal_path for one in opened}
    for path in (out / WORK_NAME).glob("*.jsonl"):
        # Answers of a model may have been paid for: they stay for a recipe that goes back to what it was.
        if path not in used and not is_prompt_journal(path):
            path.unlink()


def _summary(recipe: Recipe, manifest: Manifest, contents: Contents, changed: bool, out: Path) -> CollectSummary:
    counts: dict[str, dict[int, int]] = {}
    for split, label in manifest.frame.select("split", "label").iter_rows():
        of_split = counts.setdefault(split, {})
        of_split[label] = of_split.get(label, 0) + 1
    return CollectSummary(
        dataset=out,
        name=recipe.name,
        n_images=len(manifest),
        counts=counts,
        refused=dict(sorted(Counter(entry.reason for entry in contents.refused).items())),
        changed=changed,
    )
