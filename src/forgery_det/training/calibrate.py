"""After training: a temperature and operating points for the best checkpoint, fitted on `val` alone.

`score = sigmoid(logit / T)` with T from maximum likelihood (Guo et al., ICML 2017); thresholds at 1 % and 5 % false
positive rate and at the best balanced accuracy. They are written into the checkpoint, so that whoever scores with it
later decides by the same numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgery_det.core.errors import ConfigError
from forgery_det.data.datamodule import ManifestDataModule
from forgery_det.detectors.base import Detector, FrozenFeatures
from forgery_det.detectors.checkpoint import load_checkpoint, write_calibration
from forgery_det.metrics.calibration import fit_temperature
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.thresholded import OPERATING_POINT_RULES
from forgery_det.training.cached import FeatureDataModule
from forgery_det.training.features import FeatureBatch


def calibrate(checkpoint: Path, data: ManifestDataModule | FeatureDataModule) -> dict[str, Any]:
    """Fit temperature and operating points on `val` and write them into the checkpoint.

    Args:
        checkpoint: One of our checkpoints.
        data: What fed the training; its `val` is scored.

    Returns:
        What was fitted, for the run record.

    Raises:
        ConfigError: `val` lacks one of the classes.
    """
    detector = load_checkpoint(checkpoint).detector
    label, logit = _val_scores(detector, data)
    try:
        temperature = fit_temperature(label, logit).temperature
        points = {name: rule(label, logit) for name, rule in OPERATING_POINT_RULES.items()}
    except NotEstimableError as error:
        raise ConfigError(f"Expected real and generated images in the split `val` to calibrate on: {error}") from error
    write_calibration(checkpoint, temperature, points)
    return {"temperature": temperature, "operating_points": points, "n_val": len(label)}


@torch.no_grad()
def _val_scores(
    detector: Detector, data: ManifestDataModule | FeatureDataModule
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    data.setup("validate")
    labels, logits = [], []
    for batch in data.val_dataloader():
        if isinstance(batch, FeatureBatch) and isinstance(detector, FrozenFeatures):
            logit_B = detector.head_logit(batch.feature)
        else:
            logit_B = detector(batch.image_BCHW)
        labels.append(batch.label_B.numpy())
        logits.append(logit_B.double().numpy())
    return np.concatenate(labels).astype(np.int64), np.concatenate(logits)
