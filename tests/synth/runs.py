"""Datasets without image files, and run folders as `evaluate` leaves them, for what only reads tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.manifest import Manifest
from forgery_det.core.runs import RunRecord
from forgery_det.core.tables import PREDICTION_SCHEMA, PREDICTIONS_NAME, write_table

GENERATORS: Mapping[str, tuple[str, str]] = {
    "sd-1": ("diffusion", "vae"),
    "flux-1": ("diffusion", "vae"),
    "janus-1": ("mllm", "vq"),
}


def table_dataset(
    root: Path, n_real: int = 60, n_generated: int = 60, *, salt: str = "", crops: int = 1, split: str = "test"
) -> Manifest:
    """A manifest of one split; every `crops` neighbouring real images share a photograph."""
    rows: list[dict[str, Any]] = []
    for index in range(n_real + n_generated):
        real = index < n_real
        name = "camera" if real else list(GENERATORS)[index % len(GENERATORS)]
        paradigm, decoder = ("camera", "unknown") if real else GENERATORS[name]
        image_id = sha256_bytes(f"{salt}{index}".encode())
        rows.append(
            {
                "image_id": image_id, "path": f"images/{image_id}.png", "label": int(not real), "generator": name,
                "paradigm": paradigm, "decoder": decoder, "source": "photos" if real else "synthetic",
                "source_id": f"photo-{index // crops}" if real else f"fake-{index}", "width_px": 64, "height_px": 64,
                "codec": "png", "licence": "CC0-1.0", "split": split, "recipe": root.name,
            }
        )  # fmt: skip
    manifest = Manifest.from_rows(rows, root)
    root.mkdir(parents=True, exist_ok=True)
    manifest.write()
    return manifest


def table_run(
    root: Path,
    manifest: Manifest,
    logit_N: NDArray[np.float64],
    *,
    detector: str = "",
    checkpoint: str = "",
    thresholds: Mapping[str, float] | None = None,
    seen: Sequence[str] | None = ("sd-1",),
    keep: slice = slice(None),
    split: str = "test",
) -> Path:
    """A run folder with the given logits, in manifest order; `keep` says which images it could score."""
    predictions = pl.DataFrame(
        {
            "image_id": manifest.frame["image_id"],
            "perturbation": "none",
            "severity": 0,
            "logit": logit_N,
            "score": 1 / (1 + np.exp(-logit_N)),
        },
        schema=PREDICTION_SCHEMA,
    )
    write_table(predictions[keep], root / PREDICTIONS_NAME)
    points = {"fpr_5pct": 1.0, "balanced": 0.5} if thresholds is None else dict(thresholds)
    facts = {
        "checkpoint_sha256": checkpoint or sha256_bytes(str(root).encode()),
        "detector": detector or root.name,
        "thresholds": {"value": points},
        "seen_generators": None if seen is None else list(seen),
    }
    config = {"dataset": str(manifest.root), "split": split}
    RunRecord("evaluate", config, 0, manifest.digest(), {}, facts).write(root)
    return root


def normal_logits(manifest: Manifest, strength: float, seed: int, noise: float = 1.0) -> NDArray[np.float64]:
    """Logits that are `strength` higher on generated images; images of one source_id share half of their variance."""
    rng = np.random.default_rng(seed)
    groups = manifest.frame["source_id"].rank("dense").to_numpy() - 1
    shared = rng.normal(size=int(groups.max()) + 1)[groups]
    own = rng.normal(size=len(manifest))
    return strength * manifest.frame["label"].to_numpy() + noise * (shared + own) / np.sqrt(2.0)
