"""What a generating source will make, known without a model, a request or a written byte: see `recipes.plan`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from forgery_det.recipes.generate.base import Generator
from forgery_det.recipes.generate.job import Job
from forgery_det.recipes.generate.planning import Planner
from forgery_det.recipes.generate.registry import ResolvedGenerator
from forgery_det.recipes.generate.store import JobStore
from forgery_det.recipes.prompt_sets import Prompt, PromptContext, PromptSet, PromptSetSpec
from forgery_det.recipes.prompting.base import TextReply
from forgery_det.recipes.prompting.guards import check_reply, clean_text, word_count
from forgery_det.recipes.prompting.journal import journal_path
from forgery_det.recipes.prompting.read import read_prompt_set, seed_of
from forgery_det.recipes.sources.base import SourceContext
from forgery_det.recipes.sources.outlook import Download, Expected, Outlook, hub_download

if TYPE_CHECKING:
    from forgery_det.recipes.generate.source import GenerateParameters

LOCAL_MODELS = ("diffusers", "reconstruct", "transformers")
"""Kinds whose model is a download of the hub."""

_BYTES_PER_PIXEL = 1.5
"""Of a generated image as it is kept in the job store: PNG without loss, which is what local models give."""

_SAMPLED_DURATIONS = 50

NOT_YET_WRITTEN = ""
"""Text of a prompt that a model is still to write."""


def generate_outlook(
    parameters: GenerateParameters,
    resolved: ResolvedGenerator,
    generator: Generator,
    store: JobStore,
    context: SourceContext,
) -> Outlook:
    """Return the jobs of a generating source: exactly where its prompts can be read, by their number otherwise."""
    about = Outlook(
        downloads=_downloads(resolved, context),
        makes=True,
        kept_bytes=_kept_bytes(resolved.parameters),
        budget=parameters.budget.images,
        fields={"label": 1} | dict(resolved.fields),
    )
    if parameters.images is not None:
        return replace(about, more=None, more_usd=generator.price_usd(_job(resolved, generator)))
    prompts = context.peers.prompt_set(parameters.prompts or "") if context.peers is not None else None
    if prompts is None or not prompts.prompts:
        return replace(about, more=None, more_usd=generator.price_usd(_job(resolved, generator)))
    planned = [one for one in Planner(parameters, resolved, generator, store, context).planned() if one.job is not None]
    seconds = _seconds(store, [one.job for one in planned if one.job is not None], generator)
    items = [_expected(one.key, one.job, generator, store, seconds) for one in planned if one.job is not None]
    return replace(about, items=tuple(items))


def _expected(key: str, job: Job, generator: Generator, store: JobStore, seconds: float | None) -> Expected:
    done = job.prompt != NOT_YET_WRITTEN and store.is_done(job.job_id)
    fields = {name: value for name, value in job.fields.items() if name != "prompt"}
    return Expected(key, fields, done, generator.price_usd(job), seconds)


def _job(resolved: ResolvedGenerator, generator: Generator) -> Job:
    """Return a job that stands for any of a source whose inputs are not known yet."""
    return Job(resolved.name, resolved.kind, resolved.model, "", "", None, 0, generator.job_parameters())


def _seconds(store: JobStore, jobs: list[Job], generator: Generator) -> float | None:
    """Return the median time of this source's images so far, else what the generator says of itself."""
    durations: list[float] = []
    for job in jobs:
        if len(durations) == _SAMPLED_DURATIONS:
            break
        if job.prompt != NOT_YET_WRITTEN and store.is_done(job.job_id):
            outcome = store.get(job.job_id)
            taken = outcome.provenance.get("duration_s") if outcome is not None else None
            durations += [float(taken)] if isinstance(taken, int | float) else []
    return median(durations) if durations else generator.seconds_estimate()


def _downloads(resolved: ResolvedGenerator, context: SourceContext) -> tuple[Download, ...]:
    is_local = (context.folder / Path(resolved.model).expanduser()).is_dir()
    if resolved.kind not in LOCAL_MODELS or is_local:
        return ()
    return (hub_download(resolved.model, "models"),)


def _kept_bytes(parameters: Any) -> int | None:
    width_px, height_px = getattr(parameters, "width_px", None), getattr(parameters, "height_px", None)
    size = getattr(parameters, "size", None)
    if isinstance(size, str) and size.count("x") == 1 and size.replace("x", "").isdecimal():
        width_px, height_px = map(int, size.split("x"))
    if not isinstance(width_px, int) or not isinstance(height_px, int):
        return None
    return round(width_px * height_px * _BYTES_PER_PIXEL)


def known_prompts(spec: PromptSetSpec, out: Path, cache: Path) -> PromptSet | None:
    """Return a prompt set as far as it is known without a model or a network; None where it lies elsewhere.

    Levels that a model writes come from the answers that the dataset folder keeps; those it lacks have no text yet.

    Args:
        spec: The set.
        out: Dataset folder, which need not exist.
        cache: Folder of downloads.

    Raises:
        ConfigError: A column or a tokenizer is not there.
        SourceError: The file cannot be read.
    """
    if spec.kind != "prompt_file":
        return None
    given = tuple(level for level in spec.levels if level == spec.levels[0] or level in spec.parameters.columns)
    with tempfile.TemporaryDirectory(prefix="forgery-det-plan-") as folder:
        # Reading keeps a journal; a plan must leave the dataset folder as it is.
        first = replace(spec, levels=spec.levels[: len(given)], expand=None, tokenizer=None)
        known = read_prompt_set(first, PromptContext(Path(folder), cache))
    if spec.expand is None or len(given) == len(spec.levels):
        return known
    answers = dict(_answers(journal_path(out, spec.name)))
    prompts = list(known.prompts)
    for level in spec.levels[len(given) :]:
        before = spec.levels[spec.levels.index(level) - 1]
        for parent in [prompt for prompt in prompts if prompt.level == before]:
            longer = _longer(parent, level, spec, answers)
            prompts += [] if longer is None else [longer]
    return replace(known, prompts=tuple(prompts))


def _longer(
    parent: Prompt, level: str, spec: PromptSetSpec, answers: Mapping[tuple[str, str, int], TextReply]
) -> Prompt | None:
    """Return the longer prompt; without text where no answer is known, None where the answer was refused."""
    assert spec.expand is not None
    seed = seed_of(spec.expand.seed, parent.prompt_id, level)
    reply = answers.get((spec.expand.instruction, parent.text, seed)) if parent.text != NOT_YET_WRITTEN else None
    if reply is None:
        return replace(parent, level=level, text=NOT_YET_WRITTEN, words=0, clip_tokens=None)
    if check_reply(reply, parent.text, spec.expand.language) is not None:
        return None
    text = clean_text(reply.text)
    return replace(parent, level=level, text=text, words=word_count(text), clip_tokens=None)


def _answers(path: Path) -> Iterator[tuple[tuple[str, str, int], TextReply]]:
    """Yield the answers of a journal, reading only: instruction, text and seed of the request, and the reply."""
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            yield (entry["instruction"], entry["parent"], entry["seed"]), TextReply(**entry["reply"])
        except (ValueError, TypeError, KeyError):
            return
