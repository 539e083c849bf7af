"""Which generated images: `paradigm=mllm`, `generator=flux.1-dev|sdxl-1.0`, `paradigm=diffusion,decoder=vae`.

The words are those of `slice` in `results.parquet`: `key=value` pairs joined by `,` must all hold; values joined by `|`
are alternatives. Real images are always kept, because every number sets generated images against real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from forgery_det.core.errors import ConfigError
from forgery_det.core.registry import did_you_mean
from forgery_det.core.types import GENERATED
from forgery_det.evaluation.slices import OVERALL

COLUMNS = ("generator", "paradigm", "decoder")
"""Manifest columns that a filter may name."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on generated images.

    Args:
        text: As it was written.
        allowed: Column -> the values that it may have; all of them must hold.
    """

    text: str
    allowed: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read a filter; `overall` holds for every image.

        Raises:
            ConfigError: It is not written as `key=value` pairs, or names an unknown column.

        Example:
            >>> Filter.parse("paradigm=mllm|gan,decoder=vq").allowed
            (('paradigm', ('mllm', 'gan')), ('decoder', ('vq',)))
        """
        if text == OVERALL:
            return cls(text, ())
        allowed = []
        for part in text.split(","):
            column, equals, values = part.partition("=")
            if not equals or not all(values.split("|")):
                raise ConfigError(f"Expected a filter such as `paradigm=mllm`, got {text!r}.")
            if column not in COLUMNS:
                raise ConfigError(f"Unknown column {column!r} in the filter {text!r}: {did_you_mean(column, COLUMNS)}")
            allowed.append((column, tuple(values.split("|"))))
        return cls(text, tuple(allowed))

    def holds(self) -> pl.Expr:
        """Return the condition on the columns alone."""
        return pl.all_horizontal(pl.lit(True), *(pl.col(column).is_in(list(values)) for column, values in self.allowed))

    def generated(self) -> pl.Expr:
        """Return the condition "is generated, and the filter holds"."""
        return (pl.col("label") == GENERATED) & self.holds()

    def with_real(self) -> pl.Expr:
        """Return the condition "is real, or the filter holds"."""
        return (pl.col("label") != GENERATED) | self.holds()

    def check(self, frame: pl.DataFrame, where: str) -> None:
        """Refuse a value that no generated image of `frame` has: it would be an empty slice by a typing error.

        Raises:
            ConfigError: Names the value and what there is.
        """
        generated = frame.filter(pl.col("label") == GENERATED)
        for column, values in self.allowed:
            known = set(generated[column].unique().to_list())
            for value in values:
                if value not in known:
                    raise ConfigError(f"Unknown {column} {value!r} ({where}): {did_you_mean(value, known)}")
