"""`forgery-det fit`: hands its words to LightningCLI."""

from __future__ import annotations

from forgery_det.cli.display import shown_progress


def fit(words: list[str]) -> int:
    """Train, or resume a training; prints where the checkpoint lies."""
    from forgery_det.training import fit as run_fit

    try:
        with shown_progress() as progress:
            result = run_fit(words, progress)
    except SystemExit as stop:
        # argparse ends the process for --help (0) and for bad usage (2).
        return 0 if stop.code in (0, None) else 2
    if result.note:
        print(result.note)
    print(f"checkpoint: {result.checkpoint}")
    return 0
