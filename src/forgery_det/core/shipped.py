"""Where the shipped YAML lies: at the root of a checkout, or inside an installed package under `_share`."""

from __future__ import annotations

from pathlib import Path

from forgery_det.core.errors import ConfigError


def shipped_folders(name: str) -> tuple[Path, ...]:
    """Return where the folder `name` (`configs` or `data_recipes`) may lie, the likeliest first; not all exist."""
    package = Path(__file__).resolve().parents[1]
    return package / "_share" / name, package.parents[1] / name


def shipped_config(name: str) -> Path:
    """Return the path of a shipped configuration.

    Args:
        name: Below `configs`, for instance `experiment/quickstart.yaml`.

    Raises:
        ConfigError: There is no such file.

    Example:
        >>> shipped_config("experiment/quickstart.yaml").name
        'quickstart.yaml'
    """
    candidates = [folder / name for folder in shipped_folders("configs")]
    for path in candidates:
        if path.is_file():
            return path
    raise ConfigError(f"Expected the shipped configuration {name}, got none at {' or '.join(map(str, candidates))}.")
