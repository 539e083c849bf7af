"""What a detector offers of weights that learn in a low-rank residual, for losses that keep the residual orthogonal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class ResidualFactors(NamedTuple):
    """One weight, `main + u diag(s) v`, in P parts of equal size (3 for joined query, key and value).

    Args:
        main_POI: What stays.
        u_POr: Left factors, which learn.
        s_Pr: Their strengths, which learn.
        v_PrI: Right factors, which learn.
    """

    main_POI: Tensor
    u_POr: Tensor
    s_Pr: Tensor
    v_PrI: Tensor


@runtime_checkable
class HasResidualFactors(Protocol):
    """A detector with such weights."""

    def residual_factors(self) -> Iterator[ResidualFactors]:
        """Yield the factors of each weight, always in the same order."""
