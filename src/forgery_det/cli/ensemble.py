"""`forgery-det ensemble`: weigh trained checkpoints, and show the best of them beside the sum."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forgery_det.cli.display import shown_progress
from forgery_det.training.members import MemberResult
from forgery_det.training.weigh import weigh


def ensemble(
    checkpoints: list[Path],
    dataset: Path,
    out: Path,
    split: Literal["train", "test"] = "test",
    batch_size: int = 32,
    num_workers: int = 0,
    n_replicates: int = 1000,
    seed: int = 0,
    device: str = "cpu",
) -> int:
    """Weigh checkpoints on val and compare the ensemble with its members on images that fitted nothing.

    Args:
        checkpoints: two or more checkpoints (.ckpt)
        dataset: dataset folder; its val weighs the members
        out: run folder
        split: held-out split of the comparison
        batch_size: images a forward pass; 1 for detectors that keep an image's size
        num_workers: loader processes; 0 decodes in this one
        n_replicates: bootstrap replicates of the intervals
        seed: of the bootstrap
        device: cpu or cuda
    """
    with shown_progress() as progress:
        result = weigh(
            checkpoints, dataset, out, split=split, batch_size=batch_size, num_workers=num_workers, device=device,
            n_replicates=n_replicates, seed=seed, progress=progress,
        )  # fmt: skip
    table = Table("", "weight", "AUROC on val", f"AUROC on {split}", "ensemble minus this", box=None, pad_edge=False)
    for row in result.rows:
        table.add_row(*_cells(row))
    Console().print(table)
    for note in result.notes:
        print(f"note: {note}")
    print(f"checkpoint: {result.checkpoint}")
    return 0


def _cells(row: MemberResult) -> tuple[str, ...]:
    name = escape(row.name) + (" [bold](best on val)[/]" if row.best_on_val else "")
    one, held = row.difference, _number(row.held_out.value, row.held_out.ci_low, row.held_out.ci_high, ".3f")
    difference = "" if one is None else _number(one.difference, one.ci_low, one.ci_high, "+.3f")
    return name, "" if row.weight is None else f"{row.weight:.3f}", f"{row.val_auroc:.3f}", held, difference


def _number(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None:
        return "n/a"
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} [dim]{low:{form}} to {high:{form}}[/]"
