"""`forgery-det safety`: measure what image generators and unified models make of a user's benchmark."""

from __future__ import annotations

from pathlib import Path

from forgery_det.cli.display import shown_progress
from forgery_det.safety.measure import measure
from forgery_det.safety.page import REPORT_STEM


def safety(plan: Path, out: Path, cache: Path | None = None) -> int:
    """Walk, judge and report; exit code 1 when a budget stopped it or walks failed.

    Args:
        plan: plan (.yaml), or a shipped one: unsafe_generation, corrupted_outputs, reciprocity
        out: run folder; the same command goes on where it was cut off
        cache: folder of downloads; $FORGERY_DET_CACHE or ~/.cache/forgery-det by default
    """
    with shown_progress() as progress:
        summary = measure(plan, out, cache=cache, progress=progress)
    print(f"{summary.n_done} of {summary.n_walks} walks are done.")
    if summary.stopped:
        print(summary.stopped)
    if summary.n_failed:
        print(f"{summary.n_failed} walks failed; the same command tries them again.")
    print(f"Report: {summary.run / f'{REPORT_STEM}.html'}")
    return 1 if summary.stopped or summary.n_failed else 0
