"""Several detectors on the same images: their logits side by side, and how their sum compares with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.core.manifest import Manifest
from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.data.batches import iterate_batches
from forgery_det.detectors.base import Detector
from forgery_det.detectors.combination import Combination
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.paired_bootstrap import paired_bootstrap
from forgery_det.metrics.ranking import auroc


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of several detectors on the images of one split that every one of them could score.

    Args:
        label_N: 1 generated, 0 real.
        logit_NM: A column for each detector.
        source_id_N: Groups that are drawn together.
        n_bad: Images left out.
    """

    label_N: np.ndarray[Any, Any]
    logit_NM: np.ndarray[Any, Any]
    source_id_N: tuple[str, ...]
    n_bad: int


@dataclass(frozen=True, slots=True)
class MemberResult:
    """One member, or the ensemble itself.

    Args:
        name: Its number among the checkpoints and its registry name; `ensemble` for the ensemble.
        weight: In the ensemble; None for the ensemble itself.
        val_auroc: On the images that weighed it.
        held_out: AUROC on the held-out split.
        difference: The ensemble's AUROC minus this one's on the same images; None for the ensemble itself.
        best_on_val: Whether it is the best member.
    """

    name: str
    weight: float | None
    val_auroc: float
    held_out: Estimate
    difference: Comparison | None
    best_on_val: bool


@torch.no_grad()
def score_members(
    detectors: Sequence[Detector],
    images: Manifest,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    progress: ProgressSink = silent,
) -> Scored:
    """Return what several detectors say of the same images, each through its own geometry.

    Raises:
        ConfigError: No image could be scored by all.
    """
    columns: list[dict[str, float]] = []
    for number, detector in enumerate(detectors, 1):
        detector.to(device).eval()
        logits: dict[str, float] = {}
        stage = f"{detector.card.name} on {images.frame['split'][0]}" + (f" ({number})" if len(detectors) > 1 else "")
        for batch in iterate_batches(images, detector.preprocess, batch_size, num_workers):
            if batch.image_id:
                logit_B = detector(batch.image_BCHW.to(device)).double().cpu().tolist()
                logits |= dict(zip(batch.image_id, logit_B, strict=True))
            progress(Progress(stage, len(logits), len(images)))
        columns.append(logits)
    frame = images.frame
    good = frame.filter(pl.col("image_id").is_in([key for key in columns[0] if all(key in one for one in columns)]))
    if not good.height:
        raise ConfigError(f"Expected images that can be read, got none of {frame.height} ({images.root}).")
    logit_NM = np.array([[column[key] for column in columns] for key in good["image_id"]])
    return Scored(good["label"].to_numpy(), logit_NM, tuple(good["source_id"]), frame.height - good.height)


def compare_members(
    names: Sequence[str], combination: Combination, val: Scored, held_out: Scored, n_replicates: int, seed: int
) -> tuple[MemberResult, ...]:
    """Return a row for the ensemble and for each member, on images that fitted nothing."""
    options: dict[str, Any] = {"n_replicates": n_replicates, "seed": seed}
    together_N = combination.apply(held_out.logit_NM)
    label_N, source_N = held_out.label_N, held_out.source_id_N
    on_val = [auroc(val.label_N, column_N) for column_N in val.logit_NM.T]
    rows = [
        MemberResult(
            "ensemble",
            None,
            auroc(val.label_N, combination.apply(val.logit_NM)),
            cluster_bootstrap("auroc", label_N, together_N, source_N, **options),
            None,
            best_on_val=False,
        )
    ]
    for index, name in enumerate(names):
        alone_N = held_out.logit_NM[:, index]
        rows.append(
            MemberResult(
                name,
                combination.weight[index],
                on_val[index],
                cluster_bootstrap("auroc", label_N, alone_N, source_N, **options),
                paired_bootstrap("auroc", label_N, together_N, alone_N, source_N, **options),
                best_on_val=index == int(np.argmax(on_val)),
            )
        )
    return tuple(rows)
