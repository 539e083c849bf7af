"""What every API generator does around its protocol: keys, retries, rate limits, money, and a stop that is clean.

A job runs through this loop until it has an outcome:

    wait at the gate -> reserve money -> ask -> settle money -> image, refused or blocked: done
                                                             -> a fault: try again, give up (`failed`), or stop the run

What can be tried again is tried again, after the time the server asks for or, where it asks for none, after a backoff
with full jitter. An answer that was paid for and lost counts as spent and is risked `lost_retries` times more. A wrong
key, a closed account or a server that fails one job after another stops the run: jobs under way are finished and kept.
"""

from __future__ import annotations

import importlib.util
import os
import random
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from forgery_det.core.errors import ConfigError, ForgeryDetError, ImageError, SourceError
from forgery_det.core.image_io import read_facts
from forgery_det.recipes.generate.api.answers import Answer, Tally, scrub, spending, timed, times
from forgery_det.recipes.generate.api.budget import Budget, BudgetSpec
from forgery_det.recipes.generate.api.faults import ApiError, lost_answer, used_up_s
from forgery_det.recipes.generate.api.parameters import ApiParameters
from forgery_det.recipes.generate.api.prices import read_price
from forgery_det.recipes.generate.api.retry import Clock, Gate, RetryPolicy
from forgery_det.recipes.generate.api.workers import run_jobs
from forgery_det.recipes.generate.base import Generator, GeneratorContext, Inputs
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.notes import file_notes

if TYPE_CHECKING:
    # Only for types: plans and listings build generators where the extra `generate` is not installed.
    from forgery_det.recipes.generate.api.wire import Wire


class _Session:
    """What the jobs of one `run` share."""

    def __init__(self, generator: ApiGenerator, key: str) -> None:
        # httpx comes with the extra `generate`, which listing and planning do not need.
        from forgery_det.recipes.generate.api.wire import Wire, WireLimits

        given: ApiParameters = generator.parameters
        limits = WireLimits(given.connect_timeout_s, given.timeout_s, generator.max_response_bytes)
        self.key = key
        self.limits = limits
        self.wire: Wire = Wire(generator.key_headers(key) if key else {}, limits, generator.clock)
        self.gate = Gate(generator.clock)
        self.policy = RetryPolicy(
            given.max_attempts, given.lost_retries + 1, generator.backoff_base_s, 60.0, given.max_wait_s
        )


class ApiGenerator(Generator):
    """A generator behind an API.

    A subclass says how one job is asked (`ask`), where (`default_url`), with which key (`default_key_variable`,
    `key_headers`), and which of the API's errors are its safety filter (`is_block`).
    """

    default_url: ClassVar[str]
    default_key_variable: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("httpx",)
    keeps_budget: ClassVar[bool] = True

    # Tests turn these: time, chance and sizes.
    clock: Clock = Clock()
    backoff_base_s: float = 1.0
    max_response_bytes: int = 150 * 2**20

    parameters: Any

    def __init__(self, parameters: ApiParameters, context: GeneratorContext) -> None:
        super().__init__(parameters, context)
        self.max_concurrency = parameters.concurrency
        self._price = read_price(context.price, context.name, parameters.usd_per_image)
        # A seed would bring clients that failed together back together.
        self._chance = random.Random()

    @abstractmethod
    def ask(self, job: Job, inputs: Inputs, wire: Wire, key: str) -> Answer:
        """Ask for one image, once.

        Raises:
            ApiError: There is no usable answer.
        """

    def key_headers(self, key: str) -> dict[str, str]:
        """Return the headers that carry the key: a bearer token, where a subclass does not say otherwise."""
        return {"Authorization": f"Bearer {key}"}

    @abstractmethod
    def is_block(self, fault: ApiError) -> bool:
        """Tell whether a rejected request was stopped by the safety filter."""

    def price_keys(self) -> tuple[str, ...]:
        """Return patterns of the card's `per_image_usd` that fit the parameters, the most exact first."""
        return ()

    @property
    def url(self) -> str:
        """Return the address of the API without a slash at its end."""
        return (self.parameters.base_url or self.default_url).rstrip("/")

    @property
    def key_variable(self) -> str:
        """Return the environment variable of the key; empty for a server without keys."""
        given: str | None = self.parameters.key_variable
        return self.default_key_variable if given is None else given

    def price_usd(self, job: Job) -> float | None:
        """Return the most that a job costs, None where it is not known."""
        return self._price.at_most_usd(self.price_keys(), len(job.prompt or ""))

    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:
        """Yield every job with its outcome, as they finish.

        Raises:
            ConfigError: The key is missing or refused, the model is unknown there, or a budget in money has no price.
            SourceError: The package is missing, the account is used up, or one job after another failed.
            BudgetError: The next request could overshoot the budget.
        """
        if not jobs:
            return
        self._check_installed()
        key = self._key()
        budget = self._budget(jobs)
        session = _Session(self, key)
        one_reader = threading.Lock()

        def read_input(sha256: str) -> bytes:
            with one_reader:  # the contract of `Inputs` promises nothing about threads
                return inputs(sha256)

        def work(job: Job, stop: threading.Event) -> Outcome | None:
            return self._finish(job, read_input, session, budget, stop)

        stop, n_failed, last = threading.Event(), 0, ""
        limit = self.parameters.stop_after_failures
        try:
            for done, outcome in run_jobs(jobs, work, self.max_concurrency, stop):
                yield done, outcome
                n_failed, last = (n_failed + 1, outcome.detail) if outcome.kind == "failed" else (0, last)
                if limit and n_failed >= limit:
                    stop.set()
        finally:
            session.wire.close()
            self.close()
        if stop.is_set() and limit and n_failed >= limit:
            raise self._hopeless(n_failed, last)

    def close(self) -> None:
        """Let go of what `ask` opened; called when a run ends."""

    def _check_installed(self) -> None:
        for package in self.needs:
            if not _is_installed(package):
                raise SourceError(
                    f"Expected the package {package!r} for generator {self.context.name!r}, got none: install "
                    "`forgery-det[generate]`."
                )

    def _key(self) -> str:
        name = self.key_variable
        if not name:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise ConfigError(
                f"Expected the key of {self.url} in the environment variable {name}, got none (generator "
                f"{self.context.name!r}). `key_variable` names another one; empty means that the server needs no key."
            )
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"Expected a key of printable ASCII characters in {name}, got others.")
        return key

    def _budget(self, jobs: Sequence[Job]) -> Budget:
        spec = self.context.budget or BudgetSpec()
        if spec.usd is not None and self.price_usd(jobs[0]) is None:
            raise ConfigError(
                f"Expected a known price of {self.context.name!r} to keep a budget in USD, got none: give "
                "`usd_per_image` under `generator:`, or limit `budget.images` instead."
            )
        return Budget(spec)

    def _finish(
        self, job: Job, inputs: Inputs, session: _Session, budget: Budget, stop: threading.Event
    ) -> Outcome | None:
        tally = Tally()
        started_s = self.clock.now_s()
        most_usd = self.price_usd(job)
        while True:
            if not session.gate.wait(stop):
                return None
            reservation = budget.reserve(job.job_id, most_usd, stop)
            if reservation is None:
                return None
            tally.attempts += 1
            usd, images = reservation.usd, 1  # whatever breaks in between may have been paid for
            try:
                said = self._said(job, inputs, session)
                usd, images, basis = self._cost(said, most_usd)
            except ForgeryDetError:
                usd, images = 0.0, 0  # ours, from before the request went out
                raise
            finally:
                budget.settle(reservation, usd, images)
            tally.usd += usd
            outcome, wait_s = None, 0.0
            if isinstance(said, ApiError):
                outcome, wait_s = self._judge(job, said, tally, usd, session)
            else:
                session.gate.pause(used_up_s(said.headers))
                outcome = self._outcome(said, tally, basis, session.key)
            if outcome is not None:
                return timed(outcome, self.clock.now_s() - started_s)
            if not self.clock.sleep(wait_s, stop):
                return None

    def _said(self, job: Job, inputs: Inputs, session: _Session) -> Answer | ApiError:
        """Return the answer, or the fault that came in its place, without the key that a server may have repeated.

        A fault is returned, not raised, so that no exception that stops the run carries it along as its context.
        """
        try:
            answer = self.ask(job, inputs, session.wire, session.key)
            if answer.data is not None:
                read_facts(answer.data)
        except ImageError as error:
            return lost_answer("not_an_image", str(error))
        except ApiError as fault:
            return fault.without(session.key)
        return answer

    def _cost(self, said: Answer | ApiError, most_usd: float | None) -> tuple[float, int, str]:
        """Return the money and images that a request came to, and how that is known."""
        if isinstance(said, ApiError):
            return ((most_usd or 0.0), 1, "price table") if said.paid else (0.0, 0, "not charged")
        images = int(said.kind == "image")
        counted = self._price.of_tokens_usd(said.tokens)
        if counted is not None:
            return counted, images, "usage"
        if not images:
            return 0.0, 0, "not charged"
        return (0.0, 1, "unknown") if most_usd is None else (most_usd, 1, "price table")

    def _judge(
        self, job: Job, fault: ApiError, tally: Tally, usd: float, session: _Session
    ) -> tuple[Outcome | None, float]:
        """Return the outcome that a fault means, or None and how long to wait before the next attempt.

        Raises:
            ConfigError: The key or the address is wrong.
            SourceError: The account is used up, or the server asks for more patience than `max_wait_s`.
        """
        detail = fault.detail
        if fault.paid:
            tally.lost += 1
            tally.lost_usd += usd
        if fault.is_fatal:
            raise self._stopped(fault.reason, detail)
        if fault.reason == "rejected" and self.is_block(fault):
            return Outcome("blocked", None, detail, self._facts(job, tally, fault)), 0.0
        wait_s = self._wait(fault, tally, session)
        if wait_s is None:
            text = f"{fault.reason}: {detail} ({times(tally.attempts)})"
            return Outcome("failed", None, text, self._facts(job, tally, fault)), 0.0
        return None, wait_s

    def _wait(self, fault: ApiError, tally: Tally, session: _Session) -> float | None:
        """Return how long to wait before the same request again; None to give up."""
        policy = session.policy
        if not fault.retry or (fault.paid and tally.lost >= policy.max_lost):
            return None
        if fault.wait_s is not None:
            if fault.wait_s > policy.max_wait_s:
                raise SourceError(
                    f"Expected {self.url} to answer within `max_wait_s` = {policy.max_wait_s:g} s, got a request to "
                    f"wait {fault.wait_s:g} s (generator {self.context.name!r}). Everything made so far is kept: run "
                    "the same command again later."
                )
            session.gate.pause(fault.wait_s)
        if fault.reason == "rate_limited":
            tally.limited += 1
        elif tally.attempts - tally.limited >= policy.max_attempts:
            return None
        # After a wait that the server asked for, workers still come back one by one, not all at once.
        jitter_s = policy.backoff_s(1 if fault.wait_s is not None else tally.attempts, self._chance)
        tally.waited_s += (fault.wait_s or 0.0) + jitter_s if fault.reason == "rate_limited" else 0.0
        return None if tally.waited_s > policy.max_wait_s else jitter_s

    def _stopped(self, reason: str, detail: str) -> ConfigError | SourceError:
        where = f"{self.url} answered: {detail} (generator {self.context.name!r})"
        kept = "Everything made so far is kept."
        if reason == "quota":
            return SourceError(f"Expected an account with credit, got none left: {where}. {kept}")
        if reason == "not_found":
            return ConfigError(f"Expected the model {self.context.model!r} at this address, got none: {where}. {kept}")
        key = f"the key in {self.key_variable}" if self.key_variable else "no key (`key_variable` names none)"
        return ConfigError(f"Expected a key that may use {self.context.model!r}, got {key} refused: {where}. {kept}")

    def _hopeless(self, n_failed: int, last: str) -> SourceError:
        return SourceError(
            f"Expected images from {self.url}, got {n_failed} failed jobs in a row, the last one: {last} (generator "
            f"{self.context.name!r}). Everything made so far is kept; failed jobs are tried again by the next run."
        )

    def _outcome(self, answer: Answer, tally: Tally, basis: str, key: str) -> Outcome:
        facts = dict(answer.facts) | {"request": dict(answer.request), **spending(tally), "cost_basis": basis}
        if answer.data is not None:
            facts["notes"] = dict(answer.facts.get("notes", {})) | dict(file_notes(answer.data))
        return Outcome(answer.kind, answer.data, scrub(answer.detail, key), scrub(facts, key))

    def _facts(self, job: Job, tally: Tally, fault: ApiError) -> dict[str, Any]:
        request = {"url": self.url, "model": job.model, "prompt": job.prompt}
        return {"request": request, **spending(tally), "reason": fault.reason, "code": fault.code}


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # the parent of a namespace package is missing
        return False
