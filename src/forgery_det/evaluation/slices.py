"""Slices of a scored split: who is in them, and what they are called.

A number over everything hides where a detector fails, so each metric is also given per generator, paradigm, decoder and
prompt length. A slice of generated images is always set against *all* real images of the split: the false alarms are
the same everywhere, and only the generated side changes. Real images are sliced by source in the protocol
`false_alarm`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.errors import ConfigError
from forgery_det.core.types import GENERATED, REAL
from forgery_det.reporting.data import Exposure

OVERALL = "overall"
SEEN, HELD_OUT = "exposure=seen", "exposure=held_out"
PROMPT_WORD_BINS = (20, 60, 150)
"""Last word count of each bin but the open last one: 1-20, 21-60, 61-150, 151+."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some rows of a scored table.

    Args:
        key: As in `results.parquet`: `overall`, or `column=value`.
        group: Table it belongs to: `overall`, `generator`, `paradigm`, `decoder` or `prompt_words`.
        name: What a table shows.
        exposure: Whether its generators were seen in training.
        row_N: Row numbers in the scored table.
        n_real: Real images among them.
        n_generated: Generated images among them.
    """

    key: str
    group: str
    name: str
    exposure: Exposure
    row_N: Rows
    n_real: int
    n_generated: int


def make_slices(
    table: pl.DataFrame, seen: frozenset[str] | None, prompt_word_bins: Sequence[int] = PROMPT_WORD_BINS
) -> tuple[Slice, ...]:
    """Return all slices of a scored table, overall first; groups in a fixed order, names sorted within a group.

    Args:
        table: Predictions joined with the manifest (`label`, `generator`, `paradigm`, `decoder`, `prompt_words`).
        seen: Generators that training used; None when nobody knows, and then no slice says seen or held out.
        prompt_word_bins: Last word count of each bin but the open last one, ascending.

    Raises:
        ConfigError: The bins are not ascending positive numbers.
    """
    maker = _Maker(table, seen)
    generated = table["label"] == GENERATED
    slices = [maker.make(OVERALL, "overall", "all generators", generated)]
    if seen is not None:
        known = table["generator"].is_in(sorted(seen))
        slices.append(maker.make(SEEN, "overall", "generators seen in training", generated & known))
        slices.append(maker.make(HELD_OUT, "overall", "held-out generators", generated & ~known))
    for column in ("generator", "paradigm", "decoder"):
        for value in _values(table.filter(generated)[column]):
            slices.append(maker.make(f"{column}={value}", column, value, generated & (table[column] == value)))
    words = table["prompt_words"].fill_null(0)
    for name, low, high in prompt_bins(prompt_word_bins):
        inside = (words >= low) & (words <= high if high is not None else words >= low)
        slices.append(maker.make(f"prompt_words={name}", "prompt_words", name, generated & inside))
    return tuple(slices)


def prompt_bins(last: Sequence[int]) -> tuple[tuple[str, int, int | None], ...]:
    """Return (name, first, last) of each bin of prompt lengths in words; the last bin is open.

    Raises:
        ConfigError: Not ascending positive numbers.

    Example:
        >>> prompt_bins([20, 60])
        (('1-20', 1, 20), ('21-60', 21, 60), ('61+', 61, None))
    """
    edges = [0, *last]
    if len(edges) < 2 or any(b <= a for a, b in pairwise(edges)):
        raise ConfigError(f"Expected `prompt_word_bins` as ascending positive numbers, got {list(last)}.")
    bins: list[tuple[str, int, int | None]] = [(f"{a + 1}-{b}", a + 1, b) for a, b in pairwise(edges)]
    return (*bins, (f"{edges[-1] + 1}+", edges[-1] + 1, None))


@dataclass(frozen=True, slots=True)
class _Maker:
    """Turns a mask of generated images into a slice with all real images beside them."""

    table: pl.DataFrame
    seen: frozenset[str] | None

    def make(self, key: str, group: str, name: str, generated: pl.Series) -> Slice:
        real = self.table["label"] == REAL
        exposure = self._exposure(self.table.filter(generated)["generator"].unique())
        return Slice(key, group, name, exposure, _rows(generated | real), int(real.sum()), int(generated.sum()))

    def _exposure(self, generators: Iterable[str]) -> Exposure:
        found = set(generators)
        if self.seen is None or not found:
            return "all"
        if found <= self.seen:
            return "seen"
        return "held_out" if found.isdisjoint(self.seen) else "all"


def _rows(mask: pl.Series) -> Rows:
    return np.flatnonzero(mask.to_numpy())


def _values(series: pl.Series) -> list[str]:
    return sorted(series.unique().to_list())
