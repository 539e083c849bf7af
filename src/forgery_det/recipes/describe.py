"""`dataset.json`: what a dataset is made of, by whom, under which terms, and how many images of what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from datetime import date
from typing import Any

import polars as pl

from forgery_det._version import __version__
from forgery_det.core.manifest import Manifest
from forgery_det.recipes.process import encoder_versions
from forgery_det.recipes.recipe import Recipe

DATASET_NAME = "dataset.json"
FORMAT = 1


def describe(recipe: Recipe, manifest: Manifest, refused: Mapping[str, int]) -> dict[str, Any]:
    """Return the content of `dataset.json`; equal recipes and images give equal content, there is no time in it.

    Args:
        recipe: The recipe.
        manifest: The finished manifest.
        refused: Reason -> number of entries in the quarantine.
    """
    frame = manifest.frame
    return {
        "format": FORMAT,
        "name": recipe.name,
        "description": recipe.description,
        "citation": recipe.citation,
        "licence": recipe.licence,
        "commercial_use": recipe.commercial_use,
        "recipe_sha256": recipe.digest,
        "manifest_digest": manifest.digest(),
        "seed": recipe.seed,
        "tool_version": __version__,
        "encoder_versions": encoder_versions(),
        "label_convention": {"0": "real", "1": "generated"},
        "n_images": frame.height,
        "counts": {name: _counts(frame, name) for name in ("split", "label", "paradigm", "decoder", "generator")}
        | {"split_label": _counts(frame, "split", "label"), "source_ids": _source_ids(frame)},
        "licences": _counts(frame, "licence"),
        "sources": [
            {"id": spec.id, "kind": spec.kind, "licence": spec.licence, "citation": spec.citation}
            | {"parameters": _parameters(spec.parameters), "crops": asdict(spec.crops)}
            for spec in recipe.sources
        ],
        "policies": {
            name: None if policy is None else _json(asdict(policy))
            for name, policy in (
                ("filter", recipe.filter),
                ("align", recipe.align),
                ("dedup", recipe.dedup),
                ("split", recipe.split),
            )
        },
        "quarantine": dict(sorted(refused.items())),
    }


def _counts(frame: pl.DataFrame, *names: str) -> dict[str, int]:
    rows: Iterable[tuple[Any, ...]] = frame.select(names).iter_rows()
    return dict(sorted(Counter(",".join(str(value) for value in row) for row in rows).items()))


def _source_ids(frame: pl.DataFrame) -> dict[str, int]:
    """Return the number of groups in each split and class: what an interval is estimated from."""
    return _counts(frame.unique(["split", "label", "source_id"]), "split", "label")


def _parameters(parameters: Any) -> Any:
    """Return the parameters of a source but those that decide nothing about its images, such as where jobs run."""
    deciding = {one.name for one in fields(parameters) if not one.metadata.get("incidental")}
    return _json({name: value for name, value in asdict(parameters).items() if name in deciding})


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
