"""Executors: who does the jobs that the store does not have yet. Every outcome is stored as it comes.

An executor decides where and when jobs run, never what comes out: a dataset is the same with every executor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.core.registry import Registry
from forgery_det.recipes.generate.base import Generator, GeneratorSpec, Inputs
from forgery_det.recipes.generate.job import Job
from forgery_det.recipes.generate.store import JobStore
from forgery_det.recipes.schema import parse_section

EXECUTORS = Registry(
    "executor",
    {
        "local": "forgery_det.recipes.generate.executor:LocalExecutor",
        "ray": "forgery_det.recipes.generate.executor_ray:RayExecutor",
    },
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may make and spend at most; the next run has it anew.

    Generators that pay for each image count over all runs of a dataset instead (`api.budget`).

    Args:
        images: Number of jobs that are begun.
        usd: US dollars, by the generator's own prices.
    """

    images: int | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("usd", self.usd)):
            if value is not None and value < 0:
                raise ConfigError(f"Expected `{name}` of at least 0, got {value}")


class Executor(ABC):
    """Brings jobs to a generator and their outcomes to the store."""

    @abstractmethod
    def run(
        self,
        spec: GeneratorSpec,
        jobs: Sequence[Job],
        inputs: Inputs,
        store: JobStore,
        budget: Budget,
        progress: ProgressSink = silent,
    ) -> None:
        """Do the jobs within the budget; return when all are stored or the budget is spent.

        Args:
            spec: The generator.
            jobs: Jobs that the store lacks, each once.
            inputs: `sha256 -> bytes` of input images and masks.
            store: Takes every outcome as soon as it is there.
            budget: Stops the run cleanly; jobs beyond it have no outcome.
            progress: Told after every outcome.

        Raises:
            SourceError: No job can succeed: the model cannot be loaded, the server cannot be reached.
            ConfigError: The budget names dollars and the generator's price is not known.
        """


@dataclass(frozen=True, slots=True)
class LocalExecutor(Executor):
    """One generator in this process."""

    def run(
        self,
        spec: GeneratorSpec,
        jobs: Sequence[Job],
        inputs: Inputs,
        store: JobStore,
        budget: Budget,
        progress: ProgressSink = silent,
    ) -> None:
        """Do the jobs one after the other, or as many at once as the generator allows."""
        generator = spec.create()
        admitted = admit(generator, jobs, budget)
        stage = f"generate {spec.context.name}"
        with closing(generator.run(admitted, inputs)) as outcomes:  # type: ignore[type-var]
            for done, (job, outcome) in enumerate(outcomes, start=1):
                store.put(job, outcome)
                progress(Progress(stage, done, len(admitted)))


def create_executor(kind: str, options: Mapping[str, Any]) -> Executor:
    """Return an executor; its fields are its options.

    Raises:
        UnknownNameError: There is no such executor.
        ConfigError: It has no such option, or the value does not fit.

    Example:
        >>> create_executor("ray", {"workers": 2}).workers
        2
        >>> create_executor("ray", {"worker": 2})
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Unknown key 'worker' (executor ray): did you mean 'workers'? Known: ...
    """
    executor: Executor = parse_section(EXECUTORS.get(kind), options, f"executor {kind}")
    return executor


def admit(generator: Generator, jobs: Sequence[Job], budget: Budget) -> Sequence[Job]:
    """Return the jobs, from the first on, that the budget covers at the generator's prices.

    A generator that keeps its budget itself gets them all: it stops by what its answers did cost.

    Raises:
        ConfigError: The budget names dollars and a job's price is not known.
    """
    if generator.keeps_budget:
        return jobs
    chosen = list(jobs if budget.images is None else jobs[: budget.images])
    if budget.usd is None:
        return chosen
    spent = 0.0
    for index, job in enumerate(chosen):
        price = generator.price_usd(job)
        if price is None:
            raise ConfigError(
                f"Expected a known price of generator {job.generator!r} for a budget in dollars, got none: give "
                "`budget.images` instead, or the price where its kind has a key for it."
            )
        spent += price
        if spent > budget.usd + 1e-9:
            return chosen[:index]
    return chosen
