"""Perturbed copies beside the clean images that they were made of: what `robustness` and `contamination` judge.

Every number of a condition is on the images that have both a clean row and a copy, so a difference to clean is never
one between different images. Copies that could not be made are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import CLEAN
from forgery_det.evaluation.perturbations import Condition
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.slice_metrics import Statistics, Values
from forgery_det.evaluation.thresholds import OPERATING_POINTS
from forgery_det.transforms.perturb import PERTURBATIONS, Perturbation

NO_COPIES = (
    "not estimable (n = 0: no perturbed copies were scored; name them under `perturbations` in the evaluate "
    "configuration)"
)

FAMILIES: dict[str, str] = {
    "codec": "saved once more",
    "resize": "resampled",
    "filter": "blur and noise",
    "geometry": "crops, flips, turns",
    "colour": "tone and colour",
    "overlay": "captions",
    "chain": "emulated chains",
}
"""Family of perturbations -> words, in the order of the report."""


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """The copies of one condition.

    Args:
        condition: What was done to the images.
        values: Labels, logits and clusters of the copies, in the order of the clean images.
        clean_N: Logits of the same images as they are stored.
        row_N: Their places among the clean images.
        n_missing: Clean images without a copy: it could not be made, or not be scored.
    """

    condition: Condition
    values: Values
    clean_N: NDArray[np.float64]
    row_N: NDArray[np.intp]
    n_missing: int

    @property
    def family(self) -> str:
        """Family of the perturbation."""
        found: Perturbation = PERTURBATIONS.get(self.condition.perturbation)
        return found.family

    @property
    def name(self) -> str:
        """What a table calls the condition, for instance `jpeg 4: quality 70`."""
        words = self.condition.describe()
        return f"{self.condition.perturbation} {self.condition.severity}{': ' if words else ''}{words}"

    @property
    def note(self) -> str:
        """What a reader must know of the copies; empty when all were scored."""
        return f"{self.n_missing} images have no scored copy and are left out" if self.n_missing else ""


def paired_copies(context: ProtocolContext, label: int | None = None) -> tuple[Copies, ...]:
    """Return the copies of every condition of the judged split, sorted by perturbation and severity.

    Args:
        context: The scored table.
        label: Only images of this label; None for all.
    """
    wanted = pl.lit(True) if label is None else pl.col("label") == label
    clean = context.judged().filter(wanted).with_row_index("row")
    copies = context.perturbed().filter(wanted & (pl.col("perturbation") != CLEAN))
    parts = copies.partition_by("perturbation", "severity", as_dict=True)
    found = []
    for (name, severity), part in sorted(parts.items()):
        logit = part.select("image_id", pl.col("logit").alias("copy_logit"))
        both = clean.join(logit, on="image_id", how="inner", maintain_order="left")
        both = both.filter(pl.col("logit").is_finite() & pl.col("copy_logit").is_finite())
        values = Values.of(both.with_columns(pl.col("copy_logit").alias("logit")))
        clean_N, row_N = both["logit"].to_numpy(), both["row"].to_numpy().astype(np.intp)
        found.append(Copies(Condition(str(name), severity), values, clean_N, row_N, clean.height - both.height))
    return tuple(found)


def shortage(values: Values, statistics: Statistics, needs: Sequence[str] = ("real", "generated")) -> str:
    """Return why there are too few images of a class that is needed, or an empty text."""
    counted = values.counts()
    for kind in needs:
        if counted[kind] < statistics.min_per_class:
            return f"not estimable (n = {counted[kind]} {kind} images, fewer than {statistics.min_per_class})"
    return ""


def check_points(points: Sequence[str], context: ProtocolContext, protocol: str) -> tuple[str, ...]:
    """Return the operating points of a protocol's option.

    Raises:
        ConfigError: Unknown operating point, or none.
    """
    known = {*OPERATING_POINTS, *context.thresholds.value}
    for point in points:
        if point not in known:
            raise ConfigError(f"Unknown operating point {point!r} ({protocol}): {did_you_mean(str(point), known)}")
    if not points:
        raise ConfigError(f"Expected at least one of `operating_points` ({protocol}), got none.")
    return tuple(points)


def check_names(given: Sequence[str], known: Iterable[str], option: str, protocol: str) -> None:
    """Check the names of an option.

    Raises:
        ConfigError: A name is unknown; the text offers the nearest ones.
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise ConfigError(f"Unknown name {name!r} in `{option}` ({protocol}): {did_you_mean(str(name), names)}")


def by_perturbation(copies: Sequence[Copies]) -> dict[str, tuple[Copies, ...]]:
    """Group conditions by perturbation, those of one family together; severities ascend."""
    order = list(FAMILIES)
    ordered = sorted(copies, key=lambda part: (order.index(part.family), part.condition))
    names = dict.fromkeys(part.condition.perturbation for part in ordered)
    return {name: tuple(part for part in ordered if part.condition.perturbation == name) for name in names}


def family_title(family: str, names: Sequence[str]) -> str:
    """Return the words for a family; a chart of one line has no legend, so its name is said here.

    Example:
        >>> family_title("codec", ["jpeg"]), family_title("codec", ["jpeg", "webp"])
        ('saved once more (jpeg)', 'saved once more')
    """
    return f"{FAMILIES[family]} ({names[0]})" if len(names) == 1 else FAMILIES[family]


def on_common_images(copies: Sequence[Copies]) -> tuple[Values, list[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the images that all conditions have: (values of the first, logits of each, clean logits)."""
    common = reduce(np.intersect1d, [part.row_N for part in copies])
    inside = [np.isin(part.row_N, common) for part in copies]
    first = copies[0]
    logits = [part.values.logit_N[mask] for part, mask in zip(copies, inside, strict=True)]
    return first.values.rows(inside[0]), logits, first.clean_N[inside[0]]
