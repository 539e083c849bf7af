"""`forgery-det push`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from forgery_det.cli.display import shown_progress
from forgery_det.recipes.push import prepare, upload


def push(
    dataset: Path,
    repo: str,
    dry_run: bool = False,
    out: Path | None = None,
    file_mb: float = 300.0,
    public: bool = False,
    endpoint: str | None = None,
) -> int:
    """Push a dataset to the Hugging Face hub as Parquet with a card and Croissant metadata.

    Args:
        dataset: finished dataset folder
        repo: owner/name on the hub; made if absent
        dry_run: write the folder that would be uploaded, and upload nothing
        out: where that folder is written; inside the dataset's work folder by default
        file_mb: largest size of a Parquet file, in MB of images
        public: make a new repository public; without it, private
        endpoint: address of the hub; HF_ENDPOINT or the public hub by default
    """
    console = Console()
    with shown_progress() as progress:
        folder = prepare(dataset, repo, out=out, file_mb=file_mb, progress=progress)
    size = f"{folder.n_images} images, {len(folder.files)} files, {folder.n_bytes / 1e6:.1f} MB"
    console.print(f"{size} in {escape(str(folder.path))}", highlight=False)
    licences = ", ".join(f"{name} ({count})" for name, count in sorted(folder.licences.items()))
    console.print(f"Licences: {escape(licences)}. Whether you may pass them on is for you to know.", highlight=False)
    if not dry_run:
        console.print(f"Pushed: {escape(upload(folder, private=not public, endpoint=endpoint))}", highlight=False)
    return 0
