"""After training: a temperature and operating points for the best checkpoint, fitted on `val` alone.

`score = sigmoid(logit / T)` with T from maximum likelihood (Guo et al., ICML 2017); thresholds at 1 % and 5 % false
positive rate and at the best balanced accuracy. They are written into the checkpoint, so that whoever scores with it
later decides by the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is fitted on `val`.

    Args:
        temperature: Divides the logit before the logistic function.
        operating_points: Rule to threshold on the logit.
        n_val: Images it was fitted on.
    """

    temperature: float
    operating_points: Mapping[str, float]
    n_val: int

    @classmethod
    def fitted(cls, label_N: npt.ArrayLike, logit_N: npt.ArrayLike) -> Calibration:
        """Fit both.

        Args:
            label_N: 1 generated, 0 real; of `val`.
            logit_N: Of the same images.

        Raises:
            ConfigError: A class is missing.
        """
        label, logit = np.asarray(label_N), np.asarray(logit_N)
        try:
            temperature = fit_temperature(label, logit).temperature
            points = {name: rule(label, logit) for name, rule in OPERATING_POINT_RULES.items()}
        except NotEstimableError as error:
            raise ConfigError(
                f"Expected real and generated images in the split `val` to calibrate on: {error}"
            ) from error
        return cls(temperature, points, len(label))

    def facts(self) -> dict[str, Any]:
        """Return it for the run record."""
        return {
            "temperature": self.temperature,
            "operating_points": dict(self.operating_points),
            "n_val": self.n_val,
        }


def calibrate(
    checkpoint: Path, data: ManifestDataModule | FeatureDataModule, device: torch.device | None = None
) -> Calibration:
    """Fit temperature and operating points on `val` and write them into the checkpoint.

    Args:
        checkpoint: One of our checkpoints.
        data: What fed the training; its `val` is scored.
        device: Where it is scored; None is the CPU.

    Raises:
        ConfigError: `val` lacks one of the classes.
    """
    label_N, logit_N = _val_scores(load_checkpoint(checkpoint).detector.to(device), data)
    fitted = Calibration.fitted(label_N, logit_N)
    write_calibration(checkpoint, fitted.temperature, fitted.operating_points)
    return fitted


@torch.no_grad()
def _val_scores(
    detector: Detector, data: ManifestDataModule | FeatureDataModule
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    data.setup("validate")
    labels, logits = [], []
    for batch in data.val_dataloader():
        if isinstance(batch, FeatureBatch) and isinstance(detector, FrozenFeatures):
            logit_B = detector.head_logit(batch.feature.to(detector.device))
        else:
            logit_B = detector(batch.image_BCHW.to(detector.device))
        labels.append(batch.label_B.numpy())
        logits.append(logit_B.double().cpu().numpy())
    return np.concatenate(labels).astype(np.int64), np.concatenate(logits)
