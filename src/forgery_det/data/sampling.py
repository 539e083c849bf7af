"""Which images an epoch shows, in which order: balanced by construction, and the same again after a restart.

An epoch has as many draws as there are rows. Rows are put into groups with a share of the draws each:

    natural           one group: every image once
    class_balanced    real and generated: half of the draws each
    source_balanced   within each label, every source the same share; within a source, every image

A group with n rows and k draws is walked through in random order, again and again until k are drawn, so the small
groups repeat whole passes and the large ones show another part each epoch; that has less variance than drawing with
weights. The order depends on the seed and the epoch alone, so a run that was cut off inside an epoch goes on with the
draw after the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.data.dataset import Draw

Sampling = Literal["natural", "class_balanced", "source_balanced"]


@dataclass(frozen=True, slots=True, eq=False)  # comparing arrays with == gives no truth value
class Group:
    """Rows that share a part of the draws.

    Args:
        rows: Row numbers.
        share: Part of all draws, in (0, 1].
    """

    rows: NDArray[np.int64]
    share: float


def natural(label: Sequence[int], source: Sequence[str]) -> list[Group]:  # noqa: ARG001 - one signature for all
    """Return one group of all rows."""
    return [Group(np.arange(len(label)), 1.0)]


def class_balanced(label: Sequence[int], source: Sequence[str]) -> list[Group]:  # noqa: ARG001 - one signature for all
    """Return the real and the generated rows, half of the draws each."""
    return _by_label(label, lambda rows: [rows])


def source_balanced(label: Sequence[int], source: Sequence[str]) -> list[Group]:
    """Return the rows of each source; the sources of a label share its half equally."""
    sources = np.asarray(source)

    def by_source(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [rows[sources[rows] == name] for name in np.unique(sources[rows])]

    return _by_label(label, by_source)


SAMPLINGS: dict[str, Callable[[Sequence[int], Sequence[str]], list[Group]]] = {
    "natural": natural,
    "class_balanced": class_balanced,
    "source_balanced": source_balanced,
}
"""Name -> how rows are grouped; a new way of sampling is one function and its entry here."""


class EpochSampler(Sampler[Draw]):
    """Draws of one epoch, as a function of the seed and the epoch.

    Args:
        label: One a row, 1 = generated, 0 = real.
        source: One a row.
        sampling: Name in `SAMPLINGS`.
        seed: Of the order.

    Raises:
        ConfigError: The name is unknown, there is no row, or a balanced sampling lacks one of the labels.

    Example:
        >>> sampler = EpochSampler([0, 0, 0, 1], ["a"] * 4, "class_balanced", seed=0)
        >>> sorted(draw.row for draw in sampler)[-2:]
        [3, 3]
    """

    def __init__(self, label: Sequence[int], source: Sequence[str], sampling: Sampling, seed: int = 0) -> None:
        if sampling not in SAMPLINGS:
            raise ConfigError(f"Unknown sampling {sampling!r}: {did_you_mean(sampling, SAMPLINGS)}")
        if not len(label):
            raise ConfigError("Expected at least one image to sample from, got none.")
        self._groups = SAMPLINGS[sampling](label, source)
        self._length = len(label)
        self._seed = seed
        self.epoch = 0
        self._done = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; Lightning calls this before each."""
        self.epoch = epoch

    def resume(self, epoch: int, n_drawn: int) -> None:
        """Let the next iteration, if it is of `epoch`, go on after `n_drawn` draws."""
        self.epoch = epoch
        self._done = (epoch, n_drawn)

    @property
    def start(self) -> int:
        """Draws that the next iteration leaves out, because they were delivered before a restart."""
        epoch, n_drawn = self._done
        return n_drawn if epoch == self.epoch else 0

    def rows(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows of an epoch in order."""
        rng = np.random.default_rng((self._seed, epoch))
        counts = _counts([group.share for group in self._groups], self._length)
        drawn = [_walk(group.rows, count, rng) for group, count in zip(self._groups, counts, strict=True)]
        return rng.permutation(np.concatenate(drawn))

    def __iter__(self) -> Iterator[Draw]:
        epoch, start = self.epoch, self.start
        # Used up: a second pass over the same epoch is a whole one.
        self._done = (0, 0)
        rows = self.rows(epoch)
        for position in range(start, self._length):
            yield Draw(epoch, position, int(rows[position]))

    def __len__(self) -> int:
        return self._length


def _by_label(label: Sequence[int], parts_of: Callable[[NDArray[np.int64]], list[NDArray[np.int64]]]) -> list[Group]:
    labels = np.asarray(label)
    groups: list[Group] = []
    for value, name in ((0, "real"), (1, "generated")):
        rows = np.flatnonzero(labels == value)
        if not len(rows):
            raise ConfigError(
                f"Expected real and generated images to balance, got no {name} one. Use sampling='natural', or a "
                "dataset with both in its train split."
            )
        parts = parts_of(rows)
        groups.extend(Group(part, 0.5 / len(parts)) for part in parts)
    return groups


def _counts(shares: Sequence[float], total: int) -> list[int]:
    """Return whole numbers of draws that add up to `total` (largest remainders get the rest)."""
    exact = [share * total for share in shares]
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda k: counts[k] - exact[k])
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return counts


def _walk(rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    passes = [rng.permutation(rows) for _ in range(math.ceil(count / len(rows)))]
    return np.concatenate(passes)[:count] if passes else rows[:0]
