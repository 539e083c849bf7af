"""A program that answers JSON lines with JSON lines: start it, send, receive within a time limit, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from forgery_det.core.artefacts import canonical_json
from forgery_det.core.errors import ForgeryDetError, SourceError

_TAIL_LINES = 12
_GRACE_S = 5.0
"""Time between the end of stdin and the kill: enough to leave a loop, too short to hold up Ctrl-C."""


class ProgramEndedError(ForgeryDetError):
    """The program crashed, ended, or was silent for too long; the text has the last lines it wrote."""


class Program:
    """A running program.

    Args:
        argv: Program and arguments.
        folder: Where it is started.
        log: File that takes its stderr and whatever is no answer on its stdout; appended to.

    Raises:
        SourceError: It cannot be started.
    """

    def __init__(self, argv: Sequence[str], folder: Path, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("ab")
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        try:
            # A session of its own: whatever the program starts ends with it, and Ctrl-C reaches us first.
            self._process = subprocess.Popen(
                list(argv), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._log.close()
            raise SourceError(f"Expected to start {argv[0]!r}, got: {error.strerror} (generator.command).") from error
        self._threads = [
            threading.Thread(target=self._read_answers, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self._process.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, request: Mapping[str, Any]) -> None:
        """Write a line to the program.

        Raises:
            ProgramEndedError: It reads no more.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(canonical_json(dict(request)).encode("utf-8") + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended("no reader of its stdin") from error

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            ProgramEndedError: It ended, or was silent for `timeout_s`.
        """
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise self._ended(f"silence for {timeout_s:g} s") from None
        if answer is None:
            raise self._ended("its end")
        return answer

    def close(self) -> None:
        """End the program: its stdin ends, and what is still there after a moment is killed with all it started."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.0 if self._was_silent else _GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._log.close()

    _was_silent = False

    def _ended(self, what: str) -> ProgramEndedError:
        self._was_silent = what.startswith("silence")
        if not self._was_silent:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_S)
            self._threads[1].join(_GRACE_S)
        code = self._process.poll()
        status = "" if code is None else f", exit status {code}"
        tail = " | ".join(self._tail)
        return ProgramEndedError(f"Expected an answer, got {what}{status}. Last lines: {tail or '(none)'}")

    def _read_answers(self, stream: IO[bytes]) -> None:
        for line in stream:
            try:
                answer = json.loads(line) if line.lstrip().startswith(b"{") else None
            except ValueError:
                answer = None
            if isinstance(answer, dict) and "job_id" in answer:
                self._answers.put(answer)
            else:
                self._note(line)
        self._answers.put(None)

    def _read_errors(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._note(line)

    def _note(self, line: bytes) -> None:
        self._tail.append(line.decode("utf-8", "replace").strip())
        self._log.write(line)
        self._log.flush()
