"""One LightningModule around any detector, the feature cache of frozen backbones, and calibration on `val`."""

from __future__ import annotations

from forgery_det.training.fit import FitResult, fit

__all__ = ["FitResult", "fit"]
