"""Which generators the detector saw in training: what makes a generator "seen" or "held out".

The checkpoint knows best (`training["generators"]`, written when it was trained). Without that, the dataset's own
`train` and `val` rows are taken, since that is what a training on this dataset would have used. Where there is
neither, nobody knows, and nothing is called held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from forgery_det.core.manifest import Manifest
from forgery_det.core.types import GENERATED


def seen_generators(training: Mapping[str, Any], manifest: Manifest) -> tuple[frozenset[str] | None, str]:
    """Return the generators seen in training, None when nobody knows, and where the answer comes from.

    Args:
        training: Training summary of the checkpoint.
        manifest: The evaluated dataset.
    """
    recorded = training.get("generators")
    if recorded is not None:
        return frozenset(str(name) for name in recorded), "the checkpoint's training summary"
    own = manifest.frame.filter((pl.col("label") == GENERATED) & pl.col("split").is_in(["train", "val"]))
    if own.height:
        return frozenset(own["generator"].unique().to_list()), "the dataset's train and val splits"
    return None, "unknown: neither the checkpoint nor the dataset says"
