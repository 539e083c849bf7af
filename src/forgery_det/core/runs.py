"""Run records: what was run, on what, with what, so that every number can be traced.

`run.json` holds the resolved configuration, the manifest's hash, the git commit, the versions of the packages that
decide numbers, the seed, the hardware and the durations of the stages.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forgery_det._version import __version__
from forgery_det.core.artefacts import write_json

RUN_NAME = "run.json"

TRACKED_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "scikit-learn", "polars", "pillow")
"""Packages whose versions can change a number."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Contents of `run.json`.

    Args:
        command: The subcommand that made the run.
        config: The resolved configuration, JSON values only.
        seed: Seed of everything random in the run, None where nothing is.
        manifest_hash: `Manifest.digest()` of the dataset.
        durations_s: Stage name -> seconds.
        facts: What the command wants remembered (thresholds and where they come from, counts of bad files).
    """

    command: str
    config: Mapping[str, Any]
    seed: int | None
    manifest_hash: str | None
    durations_s: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def write(self, run: Path, name: str = RUN_NAME) -> Path:
        """Write the record into the run folder atomically, with versions, git commit and hardware; return its path."""
        path = Path(run) / name
        write_json(path, asdict(self) | {"versions": versions(), "git_sha": git_sha(), "hardware": hardware()})
        return path


def versions() -> dict[str, str]:
    """Return the versions of Python, forgery-det and the tracked packages that are installed."""
    found = {"python": platform.python_version(), "forgery-det": __version__}
    for name in TRACKED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_sha() -> str | None:
    """Return the commit of the source tree this package runs from, `+dirty` when files differ, None outside git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository: only a tree that tracks this very file counts.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    sha = git("rev-parse", "HEAD")
    return f"{sha}+dirty" if sha and git("status", "--porcelain", "--untracked-files=no") else sha


def hardware() -> dict[str, Any]:
    """Return processor, cores and operating system; accelerators are recorded by the stages that use them."""
    return {"machine": platform.machine(), "system": platform.platform(), "cpu_count": os.cpu_count()}
