"""Outlook: what a source can say of its items without fetching or writing anything, for `collect --plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forgery_det.recipes.sources.downloads import find_cached


@dataclass(frozen=True, slots=True)
class Download:
    """Something that a build fetches.

    Args:
        name: File, model or dataset.
        n_bytes: Its size, None where it is not known.
        cached: Whether it is on this machine; None for what is streamed and never kept.
    """

    name: str
    n_bytes: int | None
    cached: bool | None


@dataclass(frozen=True, slots=True)
class Expected:
    """An item to come.

    Args:
        key: Its key.
        fields: Item fields that are known already.
        done: Whether it need not be made or asked for again.
        usd: What it costs at most if it is still to be made; None where that is not known.
        seconds: How long it takes if it is still to be made; None where that is not known.
    """

    key: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False
    usd: float | None = 0.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of a source.

    Args:
        items: Items of which more is known than their number.
        more: Most further items; None where only reading can tell.
        fields: Item fields of the further items.
        downloads: What is fetched for it.
        makes: Its items are made, not read: they take time, and may cost money.
        more_usd: What each of the further items costs at most; None where that is not known.
        kept_bytes: What the cache grows by with each item that is made; None where that is not known.
        budget: Most items that one run makes; None for no limit.
    """

    items: tuple[Expected, ...] = ()
    more: int | None = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    makes: bool = False
    more_usd: float | None = 0.0
    kept_bytes: int | None = 0
    budget: int | None = None


def pinned_file(cache: Path, file: str, sha256: str, n_bytes: int | None) -> Download:
    """Return the download of a file that a recipe pins."""
    return Download(file, n_bytes, find_cached(cache, file, sha256) is not None)


def hub_download(name: str, kind: str) -> Download:
    """Return the download of a model of the hub, kept in the hub's own cache.

    Args:
        name: `owner/name`.
        kind: `models` or `datasets`, as the cache calls its folders.
    """
    # Only here: most plans name no model.
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}" / "snapshots"
    return Download(name, None, folder.is_dir() and any(folder.iterdir()))
