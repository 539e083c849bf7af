"""Bounded concurrency: a few threads take jobs one by one, and each outcome is handed over before its thread goes on.

The handing over is what makes a kill cheap. A worker waits until the caller has come back for the next outcome, and so
has stored this one; thus at most as many images as there are workers are finished and not yet stored.

Threads, not asyncio: an image takes seconds, ten or a hundred threads cost nothing beside that, `google-genai`'s
synchronous client can be used as it is, and the contract of a generator is a plain iterator.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from forgery_det.recipes.generate.job import Job, Outcome

Work = Callable[[Job, threading.Event], Outcome | None]
"""`(job, stop) -> outcome`, None when `stop` was set before there was one."""

_LOOK_S = 0.2


def run_jobs(jobs: Sequence[Job], work: Work, n_workers: int, stop: threading.Event) -> Iterator[tuple[Job, Outcome]]:
    """Yield each job with its outcome as they finish.

    An exception of one job stops the others from starting; those under way are finished and yielded (they are paid
    for), then it is raised.

    Args:
        jobs: Taken in their order.
        work: Does one job; called by several threads.
        n_workers: Most jobs under way at once.
        stop: Set by the caller to begin no more jobs; set here when the work ends.
    """
    todo = iter(jobs)
    lock = threading.Lock()
    abandoned = threading.Event()
    results: queue.Queue[tuple[Job | None, Any, threading.Event]] = queue.Queue()

    def loop() -> None:
        while not stop.is_set():
            with lock:
                job = next(todo, None)
            if job is None:
                break
            taken = threading.Event()
            try:
                outcome: Any = work(job, stop)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                stop.set()
                outcome = error
            if outcome is None:
                break
            results.put((job, outcome, taken))
            while not taken.wait(_LOOK_S) and not abandoned.is_set():
                pass
        results.put((None, None, threading.Event()))

    # Daemons: an interrupted program must not wait minutes for a server that hangs.
    threads = [threading.Thread(target=loop, daemon=True) for _ in range(max(1, min(n_workers, len(jobs))))]
    for thread in threads:
        thread.start()
    first_error: BaseException | None = None
    n_running = len(threads)
    try:
        while n_running:
            job, outcome, taken = results.get()
            if job is None:
                n_running -= 1
            elif isinstance(outcome, BaseException):
                first_error = first_error or outcome
                taken.set()
            else:
                yield job, outcome
                taken.set()
        if first_error is not None:
            raise first_error
    finally:
        stop.set()
        abandoned.set()
