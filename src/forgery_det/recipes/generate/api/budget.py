"""The budget of a run, in images and in money, that concurrency, kills and later runs cannot overshoot.

Before a request its greatest cost is reserved, afterwards it is replaced by the true one. Both are lines of a ledger on
the disk, written before the request goes out:

    {"id": "4711-3", "job": "9f...", "usd": 0.17, "images": 1}      reserved
    {"id": "4711-3", "usd": 0.042, "images": 1, "settled": true}    what it came to

A reservation without its second line belongs to a process that was killed in between. The request may have been paid
for, so it stays counted. Several processes may share a ledger; each looks at it under a lock before it reserves.

A run that resumes finds the same ledger and goes on counting. Images that the job store already held cost nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from forgery_det.core.artefacts import canonical_json, sha256_bytes
from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.recipes.generate.store import STORE_NAME

_TOLERANCE_USD = 1e-9


class BudgetError(SourceError):
    """The next request could overshoot the budget; everything made so far is kept."""


@dataclass(frozen=True, slots=True)
class BudgetSpec:
    """The limits of a run and where its spending is written down; plain data.

    Args:
        images: Most images that may be paid for, None for no limit.
        usd: Most money that may be spent, None for no limit.
        ledger: File that counts over resumed runs and between processes; None counts in memory only.
    """

    images: int | None = None
    usd: float | None = None
    ledger: Path | None = None

    def __post_init__(self) -> None:
        for name, value in (("images", self.images), ("usd", self.usd)):
            if value is not None and value < 0:
                raise ConfigError(f"Expected `budget.{name}` of 0 or more, got {value}.")

    @property
    def is_limited(self) -> bool:
        """Tell whether there is anything to watch."""
        return self.images is not None or self.usd is not None


def ledger_path(cache: Path, *names: str) -> Path:
    """Return where the ledger of a run lies: in the job store, by what tells the run from others.

    Args:
        cache: Folder of downloads.
        names: The dataset folder and the source's id.

    Example:
        >>> ledger_path(Path("/c"), "/data/out", "gpt").parent.as_posix()
        '/c/generated/ledgers'
    """
    return Path(cache) / STORE_NAME / "ledgers" / f"{sha256_bytes(canonical_json(names).encode())[:32]}.jsonl"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money and images set aside for one request."""

    id: str
    usd: float
    images: int


class Budget:
    """Reserves before a request and settles after it; safe to share between threads.

    Args:
        spec: Limits and ledger.

    Example:
        >>> budget = Budget(BudgetSpec(usd=1.0))
        >>> first = budget.reserve("a" * 64, 0.8)
        >>> budget.settle(first, usd=0.3, images=1)
        >>> second = budget.reserve("b" * 64, 0.8)
        Traceback (most recent call last):
        ...
        forgery_det.recipes.generate.api.budget.BudgetError: Budget of 1 USD reached after 1 image (0.30 USD ...
    """

    def __init__(self, spec: BudgetSpec) -> None:
        self._spec = spec
        self._run = uuid.uuid4().hex[:12]
        self._count = 0
        self._entries: dict[str, tuple[float, int]] = {}
        self._in_flight: set[str] = set()
        self._dearest_usd = 0.0
        self._read_bytes = 0
        self._settled = threading.Condition()

    @property
    def spent_usd(self) -> float:
        """Return what was spent or is set aside, over all runs that share the ledger."""
        return sum(usd for usd, _ in self._entries.values())

    @property
    def spent_images(self) -> int:
        """Return how many images were paid for or are set aside."""
        return sum(images for _, images in self._entries.values())

    def reserve(self, job_id: str, usd: float | None, stop: threading.Event | None = None) -> Reservation | None:
        """Set aside what a request can cost, waiting for requests in flight that may turn out cheaper.

        Args:
            job_id: For the ledger.
            usd: The most the request can cost, None where that is not known.
            stop: Ends the waiting.

        Returns:
            The reservation, None when `stop` was set.

        Raises:
            BudgetError: It does not fit any more.
        """
        with self._settled:
            while True:
                with self._ledger() as file:
                    # An answer that cost more than its estimate is a better estimate.
                    wanted = max(usd or 0.0, self._dearest_usd)
                    if self._fits(wanted):
                        self._count += 1
                        reservation = Reservation(f"{self._run}-{self._count}", wanted, 1)
                        self._in_flight.add(reservation.id)
                        self._note(file, {"id": reservation.id, "job": job_id, "usd": wanted, "images": 1})
                        return reservation
                if not self._in_flight:
                    raise BudgetError(self._text(wanted))
                self._settled.wait(0.2)
                if stop is not None and stop.is_set():
                    return None

    def settle(self, reservation: Reservation, usd: float, images: int) -> None:
        """Replace a reservation by what the request came to: 0 and 0 when nothing was paid.

        Args:
            reservation: From `reserve`.
            usd: The true cost, or the best that is known about it.
            images: 1 for an image that was paid for, whether or not it arrived.
        """
        with self._settled:
            with self._ledger() as file:
                self._note(file, {"id": reservation.id, "usd": usd, "images": images, "settled": True})
            self._dearest_usd = max(self._dearest_usd, usd)
            self._in_flight.discard(reservation.id)
            self._settled.notify_all()

    def _fits(self, usd: float) -> bool:
        spec = self._spec
        if spec.images is not None and self.spent_images + 1 > spec.images:
            return False
        return spec.usd is None or self.spent_usd + usd <= spec.usd + _TOLERANCE_USD

    def _text(self, wanted: float) -> str:
        images = self.spent_images
        after = f"reached after {images} image{'' if images == 1 else 's'}"
        kept = "Everything made so far is kept and is not paid for again."
        if self._spec.ledger is not None:
            kept += f" All runs of this dataset are counted, in {self._spec.ledger}."
        if self._spec.images is not None and images + 1 > self._spec.images:
            return f"Budget of {self._spec.images} images {after}: raise `budget.images` to go on. {kept}"
        return (
            f"Budget of {self._spec.usd:g} USD {after} ({self.spent_usd:.2f} USD spent, the next may cost "
            f"{wanted:.2g}): raise `budget.usd` to go on. {kept}"
        )

    @contextmanager
    def _ledger(self) -> Iterator[IO[bytes] | None]:
        """Open the ledger under its lock with everything read that others wrote."""
        path = self._spec.ledger
        if path is None:
            yield None
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            file.seek(self._read_bytes)
            for line in file.read().splitlines():
                self._apply(line)
            self._read_bytes = file.tell()
            yield file

    def _note(self, file: IO[bytes] | None, entry: dict[str, Any]) -> None:
        line = canonical_json(entry).encode()
        self._apply(line)
        if file is None:
            return
        file.seek(0, os.SEEK_END)
        # A leading line break ends a line that a kill cut short; an empty line is nothing.
        file.write(b"\n" + line + b"\n")
        file.flush()
        self._read_bytes = file.tell()

    def _apply(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self._entries[str(entry["id"])] = (float(entry["usd"]), int(entry["images"]))
        except (ValueError, KeyError, TypeError):
            return  # cut short by a kill before its request went out
