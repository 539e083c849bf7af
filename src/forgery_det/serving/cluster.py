"""Score paths with Ray: one actor a worker, batches in flight to all of them, rows in the order of the paths.

Each worker opens the model once and reads the files itself, so the model and the files must lie under the same paths on
every machine (a shared file system). Batches hold the same images as without Ray, so with the same number of threads
the rows are the same. A worker that dies is started again and its batch is scored once more.

Without a cluster Ray is started on this machine; with the environment variable `RAY_ADDRESS` it joins the one there.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from forgery_det.core.errors import ConfigError
from forgery_det.core.prediction_rows import PredictionRow

ScoreBatch = Callable[[Sequence[str]], list[PredictionRow]]
BATCHES_IN_FLIGHT = 2
"""For each worker: one that it scores, one that waits, so that it never stands still."""
TASK_RETRIES = 3


def ray_rows(
    open_scorer: Callable[[], ScoreBatch], paths: Iterable[str], *, batch_size: int, workers: int, threads: int = 1
) -> Iterator[PredictionRow]:
    """Yield one row for each path, in the order of the paths.

    Args:
        open_scorer: Called once on each worker; returns what scores a batch. It is sent there by value.
        paths: Read lazily, a few batches ahead.
        batch_size: Images a batch.
        workers: Actors.
        threads: Processors that each actor takes.

    Raises:
        ConfigError: Ray is not installed, or a number is below 1.
    """
    for name, value in (("workers", workers), ("batch_size", batch_size), ("threads", threads)):
        if value < 1:
            raise ConfigError(f"Expected `{name}` of at least 1, got {value}.")
    # The address is Ray's own word for it; its usage report is never sent from here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"Expected the package `ray` for the executor `ray`, got {error}. Install it (pip install ray)."
        ) from error
    return _rows(ray, open_scorer, paths, batch_size, workers, threads)


class _Worker:
    """An actor: the model, opened once."""

    def __init__(self, open_scorer: Callable[[], ScoreBatch]) -> None:
        self.score = open_scorer()

    def rows(self, paths: Sequence[str]) -> list[PredictionRow]:
        """Score a batch."""
        return self.score(paths)


def _rows(
    ray: Any, open_scorer: Callable[[], ScoreBatch], paths: Iterable[str], batch_size: int, workers: int, threads: int
) -> Iterator[PredictionRow]:
    started = _start(ray, workers * threads)
    try:
        actor = ray.remote(num_cpus=threads, max_restarts=-1, max_task_retries=TASK_RETRIES)(_Worker)
        actors = [actor.remote(open_scorer) for _ in range(workers)]
        waiting = iter(paths)
        # Turns give each worker its batches in order, so every n-th batch is one worker's and none overtakes.
        flying: deque[Any] = deque()
        turn = 0
        while True:
            while len(flying) < workers * BATCHES_IN_FLIGHT and (batch := list(islice(waiting, batch_size))):
                flying.append(actors[turn % workers].rows.remote(batch))
                turn += 1
            if not flying:
                return
            yield from ray.get(flying.popleft())
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, cores: int) -> bool:
    """Join the cluster of `RAY_ADDRESS`, or start Ray here; tell whether it was started by us."""
    if ray.is_initialized():
        return False
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        # Ray refuses actors beyond the processors it counts; here the caller decides how many there are.
        ray.init(num_cpus=max(cores, 1), include_dashboard=False, log_to_driver=False)
    return True
