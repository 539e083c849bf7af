"""One LightningModule around any detector: loss, validation metrics, optimiser, and what a checkpoint must carry.

The loss is binary cross-entropy on the logit, `L = -y log s(z) - (1 - y) log(1 - s(z))` with s the logistic function
and y = 1 for generated; class balance comes from sampling, not from weights, so a logit keeps its meaning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.classification import BinaryAUROC

from forgery_det.data.batches import Batch
from forgery_det.detectors import create_detector
from forgery_det.detectors.base import FrozenFeatures
from forgery_det.detectors.checkpoint import CHECKPOINT_KEY, describe
from forgery_det.training.features import FeatureBatch
from forgery_det.training.optimisation import OptimizerSettings, build_optimizer


class DetectorModule(LightningModule):
    """Train the detector called `detector` in the registry.

    Args:
        detector: Registry name, see `forgery-det list detectors`.
        detector_args: Keyword arguments of the detector; an unknown one is an error.
        weights: Checkpoint to start from: ours, safetensors, or the authors' file.
        optimizer: AdamW and its schedule.
    """

    def __init__(
        self,
        detector: str = "frozen_probe",
        detector_args: dict[str, Any] | None = None,
        weights: Path | None = None,
        optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008 - frozen, so sharing it is harmless
    ) -> None:
        super().__init__()
        self.detector = create_detector(detector, weights=weights, **(detector_args or {}))
        self.settings = optimizer
        self.training_summary: dict[str, Any] = {}
        self.val_auroc = BinaryAUROC()

    def forward(self, batch: Batch | FeatureBatch) -> Tensor:
        """Return `logit_B` for images, or for features that were computed before."""
        if isinstance(batch, FeatureBatch):
            if not isinstance(self.detector, FrozenFeatures):
                raise TypeError(f"{type(self.detector).__name__} has no frozen features to train on")
            return self.detector.head_logit(batch.feature)
        logit_B: Tensor = self.detector(batch.image_BCHW)
        return logit_B

    def training_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> Tensor | None:  # noqa: ARG002 - Lightning's signature
        """Return the loss; None, which skips the step, when every file of the batch was bad."""
        if not len(batch.label_B):
            return None
        loss = F.binary_cross_entropy_with_logits(self(batch).float(), batch.label_B)
        self.log("train/loss", loss, batch_size=len(batch.label_B), on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Log the loss and gather the scores of the AUROC."""
        if not len(batch.label_B):
            return
        logit_B = self(batch).float()
        loss = F.binary_cross_entropy_with_logits(logit_B, batch.label_B)
        self.log("val/loss", loss, batch_size=len(batch.label_B), prog_bar=True, sync_dist=True)
        # torchmetrics applies the logistic function to logits itself, and large logits would tie at 1.0 in float32:
        # ranks of logits are kept by passing probabilities of a softened logit, which is monotone.
        self.val_auroc.update(torch.sigmoid(logit_B.double() / 16), batch.label_B.long())

    def on_validation_epoch_end(self) -> None:
        """Log the AUROC over the whole validation split."""
        self.log("val/auroc", self.val_auroc.compute(), prog_bar=True)
        self.val_auroc.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a per-step cosine schedule."""
        total_steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = build_optimizer(self.detector, self.settings, total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down how to build the detector again and what it was trained on: the file is enough to use it."""
        checkpoint[CHECKPOINT_KEY] = describe(self.detector, training=self.training_summary)
