"""A data loader that can be stopped inside an epoch and go on with the next batch.

Lightning stores `state_dict()` of a loader in its checkpoints and gives it back on resume. The state is two numbers,
the epoch and the batches delivered, because `EpochSampler` makes the order of an epoch from its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from forgery_det.data.sampling import EpochSampler

T = TypeVar("T")


class ResumableLoader(DataLoader[T]):
    """A `DataLoader` over an `EpochSampler`; with another sampler it is a plain one."""

    _delivered = 0

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Yield the batches of the sampler's epoch.

        A generator on purpose: Lightning asks for the iterator before it tells the sampler the epoch, and workers would
        by then have fetched batches of the wrong one.
        """
        self._delivered = self._start()
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and how many of its batches were delivered."""
        epoch = self.sampler.epoch if isinstance(self.sampler, EpochSampler) else 0
        return {"epoch": epoch, "batches": self._delivered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that `state` counts; the next iteration does so if it is of that epoch."""
        if not isinstance(self.sampler, EpochSampler) or self.batch_size is None:
            return
        n_batches = state["batches"] if state["batches"] < len(self) else 0
        self.sampler.resume(state["epoch"], n_batches * self.batch_size)
        self._delivered = n_batches

    def _start(self) -> int:
        if not isinstance(self.sampler, EpochSampler) or self.batch_size is None:
            return 0
        return self.sampler.start // self.batch_size
