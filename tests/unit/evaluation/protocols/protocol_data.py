"""Made-up predictions: real images at logit 0, generated ones where a test puts them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from forgery_det.core.manifest import SCHEMA
from forgery_det.core.tables import PREDICTION_SCHEMA
from forgery_det.core.types import MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext, ProtocolResult
from forgery_det.evaluation.slice_metrics import Statistics
from forgery_det.evaluation.thresholds import Thresholds, no_thresholds

COLUMNS = PREDICTION_SCHEMA | SCHEMA
"""Predictions joined with the manifest; what a test does not name is null."""
POINTS = {"fpr_1pct": 2.3, "fpr_5pct": 1.6, "balanced": 0.8}


def row(index: int, logit: float, **values: Any) -> dict[str, Any]:
    """One scored generated image, each its own source, unless `values` say otherwise."""
    made = {
        "image_id": f"{index:064x}", "label": 1, "logit": float(logit), "score": 0.5, "perturbation": "none",
        "severity": 0, "split": "test", "generator": "g", "paradigm": "diffusion", "decoder": "vae", "source": "made",
        "source_id": f"s{index}", "prompt_id": None, "prompt_level": None, "prompt_words": None,
        "prompt_clip_tokens": None, "release_date": date(2025, 1, 1),
    }  # fmt: skip
    return made | values


def real(index: int, logit: float, **values: Any) -> dict[str, Any]:
    """One scored real image."""
    camera = {"label": 0, "generator": "camera", "paradigm": "camera", "decoder": "unknown", "release_date": None}
    return row(index, logit, **(camera | {"source": "alps"} | values))


def reals(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Real images with logits around 0; their numbers start at a million."""
    rng = np.random.default_rng(seed)
    return [real(1_000_000 + i, logit) for i, logit in enumerate(rng.normal(size=count))]


def make_context(
    rows: Iterable[dict[str, Any]],
    *,
    seen: Iterable[str] | None = (),
    thresholds: bool = True,
    n_replicates: int = 200,
    training: list[dict[str, Any]] | None = None,
) -> ProtocolContext:
    """The context of an evaluation; `training` are rows of the manifest that were not scored."""
    table = pl.DataFrame(list(rows), schema=COLUMNS)
    extra = pl.DataFrame(training or [], schema=COLUMNS)
    return ProtocolContext(
        table=table,
        split="test",
        thresholds=Thresholds(POINTS, "val") if thresholds else no_thresholds("there is no val"),
        statistics=Statistics(n_replicates=n_replicates),
        seen=None if seen is None else frozenset(seen),
        training={},
        manifest=pl.concat([table, extra]),
    )


def by_key(result: ProtocolResult) -> dict[tuple[str, str], MetricRecord]:
    """Records by metric and slice; each pair once."""
    found = {(record.metric, record.slice): record for record in result.records}
    assert len(found) == len(result.records)
    for record in result.records:
        # Whoever reads a table must learn why a number is absent.
        assert record.value is not None or "not estimable" in record.note, record
        assert record.value is None or np.isfinite(record.value), record
    return found


def degenerate() -> dict[str, list[dict[str, Any]]]:
    """Predictions on which nothing, or next to nothing, can be estimated."""
    return {
        "nothing": [],
        "one image": [row(0, 1.0)],
        "one real image": [real(0, 1.0)],
        "only real": reals(20),
        "only generated": [row(i, i / 10, prompt_words=10 + i) for i in range(20)],
        "all logits equal": [row(i, 1.0, prompt_words=5 + i, prompt_id=f"p{i}", prompt_level="v0") for i in range(30)]
        + [real(100 + i, 1.0) for i in range(30)],
        "NaN": [row(i, float("nan") if i == 3 else 1.0 + i / 10, prompt_words=5 + i) for i in range(30)] + reals(30),
        "one source": [row(i, i / 10, source_id="one", prompt_words=3 + i, prompt_id="p") for i in range(20)]
        + [real(100 + i, i / 20, source_id="two") for i in range(20)],
    }
