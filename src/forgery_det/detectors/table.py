"""What a table of detectors says: the card, the number of parameters, and what an image costs on this machine.

Parameters are counted on torch's meta device, which has shapes and no memory, so that the largest networks cost
nothing. Times and memory are measured elsewhere (`costs`) and given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forgery_det.detectors.base import DetectorCard
from forgery_det.detectors.costs import Cost, published_size
from forgery_det.detectors.registry import DETECTORS

_HEADINGS = ("name", "paper", "year", "backbone", "input", "M values", "M learn", "official weights", "licence")


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """One detector at its published size.

    Args:
        card: What the detector says of itself.
        n_parameters: All parameters.
        n_learning: Parameters that a training moves.
        cost: Time and memory of an image on this machine, None when they were not measured.
    """

    card: DetectorCard
    n_parameters: int
    n_learning: int
    cost: Cost | None = None


def detector_rows(names: Sequence[str] | None = None, costs: Mapping[str, Cost] | None = None) -> Iterator[DetectorRow]:
    """Yield a row for each detector.

    Args:
        names: Registry names; None for all.
        costs: What was measured, by name.
    """
    for name in names or DETECTORS.names():
        detector = published_size(name, "meta")
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in detector.parameters()]
        n_learning = sum(size for size, learns in sizes if learns)
        yield DetectorRow(detector.card, sum(size for size, _ in sizes), n_learning, (costs or {}).get(name))


def markdown_table(rows: Sequence[DetectorRow]) -> str:
    """Return the rows as a Markdown table, without what an image costs."""
    return _markdown(
        _HEADINGS,
        [
            (
                f"`{row.card.name}`",
                *(row.card.paper, str(row.card.year), row.card.backbone, row.card.input),
                *(millions(row.n_parameters), millions(row.n_learning)),
                *(row.card.official_weights or "-", row.card.licence or "-"),
            )
            for row in rows
        ],
    )


def cost_table(rows: Sequence[DetectorRow]) -> str:
    """Return what an image costs as a Markdown table, of the rows where it was measured.

    Example:
        >>> card = DetectorCard("x", "Someone, 2020", 2020, "what it looks at")
        >>> print(cost_table([DetectorRow(card, 2_000_000, 5, Cost(12.34, 30_000_000))]))
        | name | M values | ms an image | MB |
        |---|---|---|---|
        | `x` | 2.0 | 12 | 30 |
    """
    return _markdown(
        ("name", "M values", "ms an image", "MB"),
        [
            (f"`{row.card.name}`", millions(row.n_parameters), f"{row.cost.time_ms:.0f}", megabytes(row.cost))
            for row in rows
            if row.cost is not None
        ],
    )


def millions(count: int) -> str:
    """Return a count in millions, one decimal, more where it is small.

    Example:
        >>> millions(23_510_081), millions(513), millions(0)
        ('23.5', '0.0005', '0')
    """
    return f"{count / 1e6:.1f}" if count >= 50_000 else f"{count / 1e6:.4f}".rstrip("0").rstrip(".")


def megabytes(cost: Cost) -> str:
    """Return the peak memory in megabytes, without a unit."""
    return f"{cost.peak_bytes / 1e6:.0f}"


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in rows]
    return "\n".join(lines)
