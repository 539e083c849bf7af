"""`forgery-det export`: checkpoint in, bundle out, with its parity on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from forgery_det.cli.display import shown_progress
from forgery_det.export.images import MAX_IMAGES
from forgery_det.export.run import ExportSummary
from forgery_det.export.run import export as run_export


def export(
    checkpoint: Path,
    dataset: Path,
    out: Path,
    formats: list[str] = ["onnx"],  # noqa: B006 - jsonargparse shows it as the default; it is never changed
    run: Path | None = None,
    licence: str | None = None,
    sign_key: Path | None = None,
    batch_size: int = 16,
    max_images: int = MAX_IMAGES,
) -> int:
    """Write a bundle, if every format answers as the checkpoint does.

    Args:
        checkpoint: a checkpoint (.ckpt)
        dataset: dataset folder; parity, int8 ranges and abstention come from its val
        out: folder of the bundle
        formats: any of onnx, onnx_int8, openvino, pt2, triton
        run: folder of an evaluation of this checkpoint, for the model card; by default the one it lies in
        licence: of the model, for the model card
        sign_key: Ed25519 private key (PEM) that signs bundle.json
        batch_size: images a forward pass
        max_images: images of val on which parity is measured at most
    """
    with shown_progress() as progress:
        summary = run_export(
            checkpoint, out, dataset=dataset, formats=formats, run=run, licence=licence, sign_key=sign_key,
            batch_size=batch_size, max_images=max_images, progress=progress,
        )  # fmt: skip
    print_parity(summary)
    return 0


def print_parity(summary: ExportSummary) -> None:
    """Print a line for each format, and what a reader must know."""
    columns = ("max logit diff.", "mean", "AUROC", "of the detector", "decisions flipped")
    table = Table(Column("format", no_wrap=True), *columns, box=None, pad_edge=False)
    for row in summary.rows:
        flips = ", ".join(f"{name} {count}" for name, count in row.flips.items())
        cells = (f"{row.max_abs:.1e}", f"{row.mean_abs:.1e}", f"{row.auroc:.4f}", f"{row.auroc_eager:.4f}", flips)
        table.add_row(escape(row.format), *cells)
    console = Console()
    console.print(table)
    for bad in summary.bad_files:
        console.print(f"not measured: {escape(bad.path)}: {escape(bad.reason)}", highlight=False)
    for note in summary.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    print(f"bundle: {summary.bundle} ({summary.name} {summary.version})")
