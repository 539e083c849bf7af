"""Any program as a generator: JSON lines of jobs on its stdin, JSON lines of answers on its stdout.

For research repositories with environments of their own. One line in:

    {"job_id": "9f..", "prompt": "a fox", "negative_prompt": null, "seed": 7, "parameters": {...}, "model": "...",
     "model_version": "", "image_path": null, "mask_path": null, "output_path": "/tmp/../9f...png"}

One line out, in any order, a line of its own that starts with `{`:

    {"job_id": "9f..", "status": "image", "path": "/tmp/9f.png", "detail": "", "model_version": "", "provenance": {}}

`status` is `image`, `refused`, `blocked` or `failed`; `path` defaults to the `output_path`. Any codec that the decoder
knows will do. Other lines on stdout, and stderr, are kept in `<cache>/generated/logs`. The program ends when its stdin
ends. When it crashes or is silent for too long it is started again; a job on which that happens `attempts` times has
failed. `docs/generators.md` has worked examples.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError, ImageError, SourceError
from forgery_det.core.image_io import read_facts
from forgery_det.recipes.generate.base import INCIDENTAL, Generator, GeneratorContext, Inputs
from forgery_det.recipes.generate.job import OUTCOME_KINDS, Job, Outcome
from forgery_det.recipes.generate.notes import file_notes
from forgery_det.recipes.generate.program import Program, ProgramEndedError
from forgery_det.recipes.generate.store import STORE_NAME


@dataclass(frozen=True, slots=True)
class CommandParameters:
    """Keys of a `command` generator.

    Args:
        command: The program and its arguments; `{python}` is the Python that runs forgery-det, `{folder}` the recipe's
            folder, in which it is started. The command is no part of a job's id: name another `model_version` when the
            program changes what it makes.
        parameters: Sent to the program with every job, and part of its id.
        negative_prompt: What must not be in the image.
        timeout_s: Longest silence while a job is in work; the first answer may take `start_timeout_s` longer.
        start_timeout_s: Time to load a model.
        attempts: How often a job may crash the program or run into the time limit before it has failed.
        in_flight: Jobs that are sent ahead, for programs that make several images at once.
        max_crashes: Crashes in a row, without an answer between them, after which the run stops.
    """

    command: tuple[str, ...]
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    negative_prompt: str | None = None
    timeout_s: float = dataclasses.field(default=600.0, metadata=INCIDENTAL)
    start_timeout_s: float = dataclasses.field(default=600.0, metadata=INCIDENTAL)
    attempts: int = dataclasses.field(default=2, metadata=INCIDENTAL)
    in_flight: int = dataclasses.field(default=1, metadata=INCIDENTAL)
    max_crashes: int = dataclasses.field(default=5, metadata=INCIDENTAL)

    def __post_init__(self) -> None:
        if not self.command:
            raise ConfigError("Expected `command` to name a program, got an empty list")
        for name in ("timeout_s", "start_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected `{name}` above 0, got {getattr(self, name)}")
        for name in ("attempts", "in_flight", "max_crashes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected `{name}` of at least 1, got {getattr(self, name)}")


class CommandGenerator(Generator):
    """Runs a program and talks with it; see the module."""

    Parameters = CommandParameters
    needs_prompt = False
    parameters: CommandParameters

    def __init__(self, parameters: CommandParameters, context: GeneratorContext) -> None:
        super().__init__(parameters, context)
        self.max_concurrency = parameters.in_flight

    def job_parameters(self) -> dict[str, Any]:
        """Return what is sent to the program; the command line itself is no part of a job."""
        return dict(self.parameters.parameters)

    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:
        """Yield the jobs as the program answers.

        Raises:
            SourceError: The program cannot be started, or crashes time and again without an answer.
        """
        session = self.loaded(lambda: _Session(self.parameters, self.context))
        try:
            yield from session.run(jobs, inputs)
        finally:
            if not self.keeps_loaded:
                session.end()

    def release(self) -> None:
        """End the program that was kept."""
        if self._kept is not None:
            self._kept.end()
        super().release()


class _Session:
    """The queue of jobs, those in flight, and the program, which may be started several times."""

    def __init__(self, parameters: CommandParameters, context: GeneratorContext) -> None:
        self._parameters = parameters
        self._context = context
        self._temporary = tempfile.TemporaryDirectory(prefix="forgery-det-command-")
        self._folder = Path(self._temporary.name)
        self._inputs: Inputs = _no_inputs
        places = {"{python}": sys.executable, "{folder}": str(context.folder)}
        self._argv = [_placed(word, places) for word in parameters.command]
        self._log = context.cache / STORE_NAME / "logs" / f"{context.name}.log"
        self._program: Program | None = None
        self._attempts: dict[str, int] = {}
        self._sent: dict[str, float] = {}

    def run(self, jobs: Sequence[Job], inputs: Inputs) -> Iterator[tuple[Job, Outcome]]:
        self._inputs = inputs
        waiting = deque(jobs)
        flying: dict[str, Job] = {}
        crashes = 0
        while waiting or flying:
            try:
                self._send(waiting, flying)
                answer = self._program_running().receive(self._patience())
            except ProgramEndedError as error:
                crashes += 1
                if crashes >= self._parameters.max_crashes:
                    raise SourceError(
                        f"Expected answers from {' '.join(self._parameters.command)}, got {crashes} crashes in a row: "
                        f"{error} (log: {self._log}). What came so far is kept."
                    ) from error
                yield from self._after_crash(waiting, flying, str(error))
                continue
            job = flying.pop(str(answer.get("job_id")), None)
            if job is None:
                continue  # an answer to a job that was given up; the program is told nothing twice
            crashes = 0
            yield job, self._outcome(job, answer)

    def close(self) -> None:
        if self._program is not None:
            self._program.close()
            self._program = None

    def end(self) -> None:
        self.close()
        self._temporary.cleanup()

    def _program_running(self) -> Program:
        if self._program is None:
            self._program = Program(self._argv, self._context.folder, self._log)
            self._answered = False
        return self._program

    def _patience(self) -> float:
        extra = 0.0 if self._answered else self._parameters.start_timeout_s
        return self._parameters.timeout_s + extra

    def _send(self, waiting: deque[Job], flying: dict[str, Job]) -> None:
        # A job that was in flight during a crash goes alone, so that the guilty one takes no other with it.
        while waiting and (
            not flying or (len(flying) < self._parameters.in_flight and not self._suspects(waiting, flying))
        ):
            job = waiting.popleft()
            flying[job.job_id] = job
            self._sent[job.job_id] = time.monotonic()
            self._program_running().send(self._request(job))

    def _suspects(self, waiting: deque[Job], flying: Mapping[str, Job]) -> bool:
        return waiting[0].job_id in self._attempts or any(name in self._attempts for name in flying)

    def _request(self, job: Job) -> dict[str, Any]:
        return {
            "job_id": job.job_id,
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt,
            "seed": job.seed,
            "parameters": dict(job.parameters),
            "model": job.model,
            "model_version": job.model_version,
            "image_path": self._input(job.image_sha256),
            "mask_path": self._input(job.mask_sha256),
            "output_path": str(self._folder / f"{job.job_id}.png"),
        }

    def _input(self, sha256: str | None) -> str | None:
        if sha256 is None:
            return None
        path = self._folder / f"input-{sha256}"
        if not path.is_file():
            path.write_bytes(self._inputs(sha256))
        return str(path)

    def _after_crash(self, waiting: deque[Job], flying: dict[str, Job], reason: str) -> Iterator[tuple[Job, Outcome]]:
        """Put the jobs in flight back to the front of the queue; give up those that crashed too often."""
        self.close()
        again: list[Job] = []
        for job_id, job in list(flying.items()):
            self._attempts[job_id] = self._attempts.get(job_id, 0) + 1
            if self._attempts[job_id] >= self._parameters.attempts:
                detail = f"Expected an answer, got {self._attempts[job_id]} times: {reason}"
                yield job, Outcome("failed", None, detail, self._provenance(job, {}))
            else:
                again.append(job)
        flying.clear()
        waiting.extendleft(reversed(again))

    def _outcome(self, job: Job, answer: Mapping[str, Any]) -> Outcome:
        self._answered = True
        provenance = self._provenance(job, answer)
        status, detail = answer.get("status"), str(answer.get("detail", ""))
        if status not in OUTCOME_KINDS:
            return Outcome("failed", None, f"Expected a status of {OUTCOME_KINDS}, got {status!r}.", provenance)
        if status != "image":
            return Outcome(status, None, detail, provenance)
        path = Path(str(answer.get("path") or self._folder / f"{job.job_id}.png"))
        try:
            data = path.read_bytes()
            read_facts(data)
        except (OSError, ImageError) as error:
            return Outcome("failed", None, f"Expected an image at {path.name}, got: {error}", provenance)
        if path.is_relative_to(self._folder):
            path.unlink()
        notes = {"received_sha256": sha256_bytes(data), "file_notes": dict(file_notes(data))}
        return Outcome("image", data, detail, provenance | notes)

    def _provenance(self, job: Job, answer: Mapping[str, Any]) -> dict[str, Any]:
        told = answer.get("provenance")
        return {
            "command": list(self._parameters.command),
            "model_version_returned": answer.get("model_version"),
            "seed": job.seed,
            "told": dict(told) if isinstance(told, Mapping) else {},
            "cost_usd": 0.0,
            "attempts": self._attempts.get(job.job_id, 0) + 1,
            "duration_s": round(time.monotonic() - self._sent[job.job_id], 3),
        }


def _no_inputs(sha256: str) -> bytes:
    raise AssertionError(sha256)  # `run` sets the inputs before any job is sent


def _placed(word: str, places: Mapping[str, str]) -> str:
    for name, value in places.items():
        word = word.replace(name, value)
    return word
