"""What an image costs: the price entry of a generator's card, asked before a request and after it.

Before: the most that a request of these parameters can cost, so that a budget is never overshot. After: the tokens that
the API counted, times their prices; the table only where the answer counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from forgery_det.recipes.schema import parse_section

TOKEN_KINDS = ("text_input", "image_input", "text_output", "image_output")

_CHARACTERS_PER_TOKEN = 2
"""Fewer than any tokenizer needs for running text, so that the estimate of a prompt's cost is not too low."""


@dataclass(frozen=True, slots=True)
class Price:
    """The `price` of a generator's card.

    Args:
        source: Where the prices are stated.
        as_of: Day on which they were read there.
        per_image_usd: Parameters, in the way of the kind (`quality/size`, `size`), -> price; `default` for all others.
        per_million_tokens_usd: Kind of token (`text_input`, `image_input`, `text_output`, `image_output`) -> price.

    Example:
        >>> price = Price(per_image_usd={"low/1024x1024": 0.01, "high/1024x1024": 0.2})
        >>> price.at_most_usd(("low/1024x1024",)), price.at_most_usd(("*/1024x1024",)), price.at_most_usd(("low/4K",))
        (0.01, 0.2, None)
    """

    source: str = ""
    as_of: date | None = None
    per_image_usd: Mapping[str, float] = field(default_factory=dict)
    per_million_tokens_usd: Mapping[str, float] = field(default_factory=dict)

    def at_most_usd(self, keys: Sequence[str], prompt_characters: int = 0) -> float | None:
        """Return the most that one image costs; None where that is not known.

        Args:
            keys: Entries of `per_image_usd` that may fit, as patterns with `*`, the most exact first; of several
                entries that fit a pattern, the dearest counts.
            prompt_characters: Length of the prompt, which is paid for too where tokens have a price.
        """
        fitting = [
            max(prices)
            for key in (*keys, "default")
            if (prices := [usd for name, usd in self.per_image_usd.items() if fnmatchcase(name, key)])
        ]
        if not fitting:
            return None
        tokens = prompt_characters / _CHARACTERS_PER_TOKEN
        return fitting[0] + tokens * self.per_million_tokens_usd.get("text_input", 0.0) / 1e6

    def of_tokens_usd(self, tokens: Mapping[str, int]) -> float | None:
        """Return what counted tokens cost; None where one of their kinds has no known price.

        Example:
            >>> Price(per_million_tokens_usd={"image_output": 30}).of_tokens_usd({"image_output": 1000})
            0.03
        """
        counted = {kind: count for kind, count in tokens.items() if count}
        if not counted or any(kind not in self.per_million_tokens_usd for kind in counted):
            return None
        return sum(count * self.per_million_tokens_usd[kind] for kind, count in counted.items()) / 1e6


def read_price(entry: Mapping[str, Any], name: str, usd_per_image: float | None = None) -> Price:
    """Return the price of a card, overruled by what the recipe says about it.

    Args:
        entry: `price` of the card; empty where none is known.
        name: The generator, for errors.
        usd_per_image: The recipe's own price of one image.

    Raises:
        ConfigError: The entry breaks its schema.
    """
    if usd_per_image is not None:
        return Price(source="recipe", per_image_usd={"default": usd_per_image})
    return parse_section(Price, entry, f"generators.yaml: {name}.price") if entry else Price()
