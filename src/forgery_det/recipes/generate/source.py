"""The source kind `generate`: prompts, or images of another source, become jobs, and jobs become items.

    prompts x levels x images_per_prompt  ->  jobs  ->  store, or executor and then store  ->  items

All jobs are known before the first one is done, and items come in the order of the jobs whatever order they finish in.
What the store has is never asked for again, so a build that was killed goes on with the jobs that are missing, and the
dataset is the same byte for byte. Refusals of a model and blocks of its safety filter are data: they go to the
quarantine as `refused` and `blocked` and are final. `generation_failed` and `not_generated` (the budget was spent) are
tried again by the next run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.recipes.generate.api.budget import BudgetError, BudgetSpec, ledger_path
from forgery_det.recipes.generate.base import INCIDENTAL, GeneratorSpec
from forgery_det.recipes.generate.executor import EXECUTORS, Budget, create_executor
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.masks import MaskPolicy
from forgery_det.recipes.generate.planning import Planned, Planner
from forgery_det.recipes.generate.registry import ResolvedGenerator, resolve_generator
from forgery_det.recipes.generate.store import JobStore
from forgery_det.recipes.sources.base import Skip, Source, SourceContext, SourceItem
from forgery_det.recipes.sources.outlook import Outlook

FAILED, NOT_GENERATED = "generation_failed", "not_generated"
"""Stable words of the quarantine: given up after retries, and not begun because the budget was spent."""

MEASURED = ("duration_s", "finished_at", "attempts", "device_name", "batch_size", "offload")
"""Provenance that differs from run to run; it stays in the job store, so that a dataset does not depend on it."""


@dataclass(frozen=True, slots=True)
class GenerateParameters:
    """Keys of a `generate` source.

    Args:
        generator: `name` of a card, and the parameters of its kind; or `name`, `kind`, `model` and `paradigm`.
        prompts: Name of a prompt set.
        levels: Levels of the set that are used.
        prompt: One text for all input images, instead of a prompt set.
        images: Id of the source whose originals are the input of image-to-image, inpainting and reconstruction.
        mask: Where the masks of inpainting come from.
        images_per_prompt: Images made of each prompt (or input image), each with a seed of its own.
        limit: Most prompts of each level, or most input images.
        seed: Start of all seeds; the seed of an image depends on it, on its prompt or input, and on its number.
        budget: What one run may make and spend at most.
        executor: Where jobs run; a name, or a mapping with `kind` and its options.
    """

    generator: Mapping[str, Any]
    prompts: str | None = None
    levels: tuple[str, ...] = ("v0",)
    prompt: str | None = None
    images: str | None = None
    mask: MaskPolicy | None = None
    images_per_prompt: int = 1
    limit: int | None = None
    seed: int = 0
    budget: Budget = field(default_factory=Budget, metadata=INCIDENTAL)
    executor: Any = field(default="local", metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        resolve_generator(self.generator)
        create_executor(*executor_options(self.executor))
        if self.prompts is None and self.images is None:
            raise ConfigError("Expected `prompts` or `images`: what images are made of, got neither")
        if self.prompts is not None and self.prompt is not None:
            raise ConfigError("Expected `prompts` or `prompt`, got both")
        if self.mask is not None and self.images is None:
            raise ConfigError("Expected `images` where there is a `mask`, got none")
        for name in ("images_per_prompt", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected `{name}` of at least 1, got {value}")

    def resolved(self) -> ResolvedGenerator:
        """Return the generator with its card."""
        return resolve_generator(self.generator)


class GenerateSource(Source):
    """One item a job; the key is `<prompt_id>/<level>/<index>`, or `<key of the input>/<index>`."""

    Parameters = GenerateParameters
    gives_fields = True

    def __init__(self, parameters: GenerateParameters, context: SourceContext) -> None:
        self._parameters = parameters
        self._context = context
        self._resolved = parameters.resolved()
        self._spec = _with_budget(self._resolved.spec(context.folder, context.cache), parameters.budget, context)
        self._no_room = "Expected room in the budget of this run, got none: the next run goes on here."
        self._store = JobStore(context.cache)

    def identity(self) -> Mapping[str, Any]:
        """Return what the recipe asks for; what of it decides the pixels of an image is in its stamp."""
        given = asdict(self._parameters)
        kept = {name: given[name] for name in given if name not in ("budget", "executor")}
        kept["generator"] = {name: str(value) for name, value in self._parameters.generator.items()}
        return kept | {"generator_kind": self._resolved.kind, "model": self._resolved.model}

    def planned(self) -> Iterator[Planned]:
        """Yield the jobs in their stable order, and what cannot become a job with its refusal.

        Raises:
            ConfigError: The recipe has no such prompt set or source, or they do not go with the generator.
            SourceError: The prompts or the input images cannot be read, or there are none.
        """
        planner = Planner(self._parameters, self._resolved, self._spec.create(), self._store, self._context)
        return planner.planned()

    def missing(self, planned: list[Planned], skip: Skip) -> list[Job]:
        """Return the jobs that have to be done, each once, in order."""
        wanted: dict[str, Job] = {}
        for one in planned:
            if one.job is not None and not skip(one.key, one.stamp):
                wanted.setdefault(one.job.job_id, one.job)
        return [job for job_id, job in wanted.items() if not self._store.is_done(job_id)]

    def outlook(self) -> Outlook:
        """Return the jobs, and which of them the store has, asking no model and no server."""
        # Only here: a build needs none of it.
        from forgery_det.recipes.generate.outlook import generate_outlook

        return generate_outlook(self._parameters, self._resolved, self._spec.create(), self._store, self._context)

    def items(self, skip: Skip, position: Any = None) -> Iterator[SourceItem]:  # noqa: ARG002 - order is by job
        """Yield the items, after all missing jobs are done.

        Raises:
            ConfigError: The recipe's parts do not fit together.
            SourceError: The generator cannot work at all; what came so far is kept.
        """
        planned = list(self.planned())
        missing = self.missing(planned, skip)
        if missing:
            executor, options = executor_options(self._parameters.executor)
            try:
                create_executor(executor, options).run(
                    self._spec, missing, self._store.read_input, self._store, self._parameters.budget,
                    self._context.progress,
                )  # fmt: skip
            except BudgetError as reached:
                self._no_room = str(reached)
        for one in planned:
            yield self._item(one, skip)

    def _item(self, one: Planned, skip: Skip) -> SourceItem:
        if one.job is None:
            return SourceItem(one.key, one.stamp, refusal=one.refusal)
        if skip(one.key, one.stamp):
            return SourceItem(one.key, one.stamp)
        outcome = self._store.get(one.job.job_id)
        if outcome is None:
            return SourceItem(one.key, refusal=(NOT_GENERATED, self._no_room))
        fields, notes = dict(one.job.fields), _notes(one.job, outcome)
        if outcome.data is not None:
            return SourceItem(one.key, one.stamp, outcome.data, fields, notes=notes)
        if outcome.is_final:
            return SourceItem(one.key, one.stamp, fields=fields, refusal=(outcome.kind, outcome.detail), notes=notes)
        # Without its stamp the record does not settle the item, so the next run asks again.
        return SourceItem(one.key, fields=fields, refusal=(FAILED, outcome.detail), notes=notes)


def _with_budget(spec: GeneratorSpec, budget: Budget, context: SourceContext) -> GeneratorSpec:
    """Return the spec with the budget of this dataset's source, for generators that keep it themselves."""
    if budget.images is None and budget.usd is None:
        return spec
    out = "" if context.out is None else str(context.out.resolve())
    limits = BudgetSpec(budget.images, budget.usd, ledger_path(context.cache, out, context.source_id))
    return replace(spec, context=replace(spec.context, budget=limits))


def _notes(job: Job, outcome: Outcome) -> dict[str, Any]:
    provenance = {name: value for name, value in outcome.provenance.items() if name not in MEASURED}
    request = {name: value for name, value in job.to_json().items() if value not in (None, "", {})}
    return {"job_id": job.job_id, "request": request, "provenance": provenance, **job.notes}


def executor_options(value: Any) -> tuple[str, dict[str, Any]]:
    """Return the executor's name and options from the key `executor` of a recipe.

    Raises:
        ConfigError: It is neither a name nor a mapping with `kind`, or there is no such executor.

    Example:
        >>> executor_options({"kind": "local"})
        ('local', {})
    """
    given = {"kind": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("kind"), str):
        raise ConfigError(f"Expected the name of an executor or a mapping with `kind`, got {value!r} (executor).")
    if given["kind"] not in EXECUTORS:
        hint = did_you_mean(given["kind"], EXECUTORS)
        raise ConfigError(f"Unknown executor {given['kind']!r}: {hint} (executor).")
    return given["kind"], {key: option for key, option in given.items() if key != "kind"}
