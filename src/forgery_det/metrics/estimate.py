"""The value that every table shows: a number, its interval, how many images it rests on, and what to know about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its confidence interval.

    Attributes:
        value: The metric on the data as they are; None if it cannot be estimated.
        ci_low: Lower end of the interval; None if there is no honest interval.
        ci_high: Upper end of the interval; None if there is no honest interval.
        n: Images that the metric counts: generated ones for TPR, real ones for FPR, all of them otherwise.
        note: Empty, or what a reader must know, such as "not estimable (n = 12: only real images)".
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    note: str = ""

    @classmethod
    def missing(cls, n: int, note: str) -> Estimate:
        """Return an estimate without a value.

        Example:
            >>> Estimate.missing(3, "not estimable (n = 3: only real images)").value is None
            True
        """
        return cls(None, None, None, n, note)
