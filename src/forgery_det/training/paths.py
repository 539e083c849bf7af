"""Where a training keeps what in its run folder."""

from __future__ import annotations

from pathlib import Path

FIT_RECORD, CONFIG_NAME = "fit.json", "config.yaml"
CHECKPOINTS, BEST, LAST = "checkpoints", "best", "last"


def best_checkpoint(run: Path) -> Path:
    """Return the path of the checkpoint that a finished training leaves.

    Example:
        >>> best_checkpoint(Path("run")).as_posix()
        'run/checkpoints/best.ckpt'
    """
    return Path(run) / CHECKPOINTS / f"{BEST}.ckpt"
