"""Jobs on a Ray cluster: one worker a GPU, each with a generator of its own (`executor: {kind: ray, workers: 8}`).

    jobs -> shares -> workers (build the generator once, yield outcome by outcome) -> this process -> job store

Outcomes come back one by one and are stored here as they come, so the store need not be a shared disk, and a worker
that is killed loses what it had in work and nothing else. Its other jobs go to the next free worker. A job on which
workers die `attempts` times has failed. Which worker does a job decides nothing about its image.

A share is half of what is left, divided by the workers: long ones first, because a generator may load its model for
each share, and short ones at the end, so that no worker waits long for another.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.recipes.generate.base import GeneratorSpec, Inputs
from forgery_det.recipes.generate.executor import Budget, Executor, admit
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.store import JobStore

_OBJECT_STORE_BYTES = 256 * 2**20
"""For a cluster that is started here: images wait there between a worker and this process, not longer."""


@dataclass(frozen=True, slots=True)
class RayExecutor(Executor):
    """Workers on a Ray cluster, or on this machine where no cluster is named.

    Args:
        workers: Number of workers; None takes one a GPU, or one where there is none.
        address: Of a cluster, or `auto` for the one this machine belongs to; None starts one for this run, here.
        cpus: CPUs that each worker takes; may be a fraction.
        gpus: GPUs that each worker takes; None takes one where the cluster has any.
        attempts: Workers that may die of one job before it has failed.
    """

    workers: int | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float | None = None
    attempts: int = 3

    def __post_init__(self) -> None:
        for name in ("workers", "attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected `{name}` of at least 1, got {value} (executor)")
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"Expected `{name}` of at least 0, got {value} (executor)")

    def run(
        self,
        spec: GeneratorSpec,
        jobs: Sequence[Job],
        inputs: Inputs,
        store: JobStore,
        budget: Budget,
        progress: ProgressSink = silent,
    ) -> None:
        """Do the jobs on the workers; see `Executor.run`."""
        admitted = admit(spec.create(), jobs, budget)
        if not admitted:
            return
        started = not _ray().is_initialized()
        ray = self.connected()
        try:
            crew = _Crew(ray, self, spec, inputs)
            for done, (job, outcome) in enumerate(crew.run(admitted), start=1):
                store.put(job, outcome)
                progress(Progress(f"generate {spec.context.name}", done, len(admitted)))
        finally:
            if started:
                ray.shutdown()

    def connected(self) -> Any:
        """Return `ray`, connected to the cluster; one that it is connected to already stays as it is.

        Raises:
            ConfigError: The package `ray` is missing.
        """
        ray = _ray()
        if not ray.is_initialized():
            self._start(ray)
        return ray

    def _start(self, ray: Any) -> None:
        if self.address is not None:
            ray.init(address=self.address, log_to_driver=False, configure_logging=False)
            return
        # As many slots as workers were asked for: whoever asks for two workers on one core gets two.
        cpus = max(os.cpu_count() or 1, ceil((self.workers or 1) * self.cpus))
        ray.init(
            num_cpus=cpus,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )


class _Crew:
    """The workers of one run, and the jobs that still need one."""

    def __init__(self, ray: Any, executor: RayExecutor, spec: GeneratorSpec, inputs: Inputs) -> None:
        self._ray = ray
        self._spec = spec
        self._inputs = inputs
        self._attempts = executor.attempts
        resources = ray.cluster_resources()
        has_gpu = resources.get("GPU", 0) >= 1
        gpus = executor.gpus if executor.gpus is not None else float(has_gpu)
        self._size = executor.workers or max(1, int(resources.get("GPU", 0) / gpus) if gpus else 1)
        # A worker that dies is replaced here, with a fresh share of jobs, not by Ray.
        self._actor = ray.remote(_Worker).options(num_cpus=executor.cpus, num_gpus=gpus, max_restarts=0)
        self._waiting: deque[Job] = deque()
        self._alone: deque[Job] = deque()
        self._deaths: Counter[str] = Counter()
        self._shares: dict[Any, _Share] = {}

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield every job with its outcome, as they come.

        Raises:
            SourceError: A worker says that no job can succeed.
        """
        self._waiting.extend(jobs)
        idle = [self._actor.remote(self._spec) for _ in range(min(self._size, len(jobs)))]
        try:
            while self._waiting or self._alone or self._shares:
                while idle and (self._waiting or self._alone):
                    share = self._give(idle.pop())
                    self._shares[share.outcomes] = share
                (ready,), _ = self._ray.wait(list(self._shares), num_returns=1, fetch_local=False)
                share = self._shares[ready]
                result = self._next(share)
                if result is None:
                    del self._shares[ready]
                    idle.append(share.worker)
                elif result is _DEAD:
                    del self._shares[ready]
                    yield from self._bury(share)
                    if self._waiting or self._alone:
                        idle.append(self._actor.remote(self._spec))
                else:
                    yield result
        finally:
            for worker in [*idle, *(share.worker for share in self._shares.values())]:
                self._ray.kill(worker)

    def _give(self, worker: Any) -> _Share:
        if self._alone:
            jobs = [self._alone.popleft()]
        else:
            size = ceil(len(self._waiting) / (2 * self._size))
            jobs = [self._waiting.popleft() for _ in range(size)]
        names = {name for job in jobs for name in (job.image_sha256, job.mask_sha256) if name is not None}
        needed = {name: self._inputs(name) for name in names}
        outcomes = worker.run.options(num_returns="streaming").remote(jobs, needed)
        return _Share(worker, outcomes, {job.job_id: job for job in jobs})

    def _next(self, share: _Share) -> Any:
        """Return the next job and outcome of a share, None at its end, `_DEAD` when its worker is gone."""
        try:
            job_id, outcome = self._ray.get(next(share.outcomes))
        except StopIteration:
            return None
        except self._ray.exceptions.RayActorError:
            return _DEAD
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, SourceError | ConfigError):
                raise error.cause from error
            raise
        return share.jobs.pop(job_id), outcome

    def _bury(self, share: _Share) -> Iterator[tuple[Job, Outcome]]:
        """Take back the jobs of a dead worker; the first of them is the likeliest cause, so it goes alone next."""
        left = list(share.jobs.values())
        if not left:
            return
        suspect, *others = left
        self._waiting.extendleft(reversed(others))
        self._deaths[suspect.job_id] += 1
        if self._deaths[suspect.job_id] < self._attempts:
            self._alone.append(suspect)
            return
        detail = f"Expected a worker to survive it, got {self._attempts} that died on this job."
        yield suspect, Outcome("failed", detail=detail)


_DEAD = object()


@dataclass(slots=True)
class _Share:
    """What one worker has in work: the stream of its outcomes, and the jobs that it has not answered."""

    worker: Any
    outcomes: Any
    jobs: dict[str, Job]


class _Worker:
    """Lives in a process of its own, with one generator."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._generator = spec.create()

    def run(self, jobs: Sequence[Job], inputs: dict[str, bytes]) -> Iterator[tuple[str, Outcome]]:
        """Yield the id and the outcome of each job as it is finished."""
        for job, outcome in self._generator.run(jobs, inputs.__getitem__):
            yield job.job_id, outcome


def _ray() -> Any:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "Expected the package `ray` for `executor: ray`, got none: install `forgery-det[distributed]`."
        )
    # Read when ray is imported: no report about its use leaves the machine, and a worker without GPU sees none.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    return importlib.import_module("ray")
