"""One LightningModule around any detector: loss, validation metrics, optimiser, and what a checkpoint must carry.

What is minimised is a loss of `training.losses`. `val/loss`, by which the best checkpoint is chosen, is the
cross-entropy whatever the loss is, so that trainings can be compared. Both classes count half, as training draws them:
at another share of real images a detector that ranks well would lose to one that says nothing.

    val/loss = (mean over real of -log s(-z) + mean over generated of -log s(z)) / 2
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC

from forgery_det.data.batches import Batch
from forgery_det.detectors import create_detector
from forgery_det.detectors.base import FrozenFeatures
from forgery_det.detectors.checkpoint import CHECKPOINT_KEY, describe
from forgery_det.training.features import FeatureBatch
from forgery_det.training.losses import create_loss, cross_entropy
from forgery_det.training.optimisation import OptimizerSettings, build_optimizer


class DetectorModule(LightningModule):
    """Train the detector called `detector` in the registry.

    Args:
        detector: Registry name, see `forgery-det list detectors`.
        detector_args: Keyword arguments of the detector; an unknown one is an error.
        weights: Checkpoint to start from: ours, safetensors, or the authors' file; a path or an `hf://` address.
        loss: Registry name, see `forgery_det.training.losses`.
        loss_args: Keyword arguments of the loss, such as its weight; an unknown one is an error.
        optimizer: AdamW and its schedule.
    """

    def __init__(
        self,
        detector: str = "frozen_probe",
        detector_args: dict[str, Any] | None = None,
        weights: str | None = None,
        loss: str = "bce",
        loss_args: dict[str, Any] | None = None,
        optimizer: OptimizerSettings = OptimizerSettings(),  # noqa: B008 - frozen, so sharing it is harmless
    ) -> None:
        super().__init__()
        self.detector = create_detector(detector, weights=weights, **(detector_args or {}))
        self.loss = create_loss(loss, loss_args or {}, self.detector)
        self.settings = optimizer
        self.training_summary: dict[str, Any] = {}
        self.val_auroc = BinaryAUROC()
        self.val_loss_real, self.val_loss_generated = MeanMetric(), MeanMetric()

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
        with self.loss.watching(self.detector):
            logit_B = self(batch)
        parts = self.loss(self.detector, logit_B, batch.label_B)
        loss = torch.stack(list(parts.values())).sum()
        shown = {"loss": loss} if len(parts) == 1 else {"loss": loss, **parts}
        for name, value in shown.items():
            self.log(f"train/{name}", value.detach(), batch_size=len(batch.label_B), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Log the loss and gather the scores of the AUROC."""
        if not len(batch.label_B):
            return
        logit_B = self(batch).float()
        for label, mean in enumerate((self.val_loss_real, self.val_loss_generated)):
            of_class = batch.label_B == label
            if of_class.any():
                mean.update(cross_entropy(logit_B[of_class], batch.label_B[of_class]), int(of_class.sum()))
        # torchmetrics applies the logistic function to logits itself, and large logits would tie at 1.0 in float32:
        # ranks of logits are kept by passing probabilities of a softened logit, which is monotone.
        self.val_auroc.update(torch.sigmoid(logit_B.double() / 16), batch.label_B.long())

    def on_validation_epoch_end(self) -> None:
        """Log the loss, both classes at equal weight, and the AUROC over the whole validation split."""
        loss = (self.val_loss_real.compute() + self.val_loss_generated.compute()) / 2
        self.log("val/loss", loss, prog_bar=True)
        self.log("val/auroc", self.val_auroc.compute(), prog_bar=True)
        for metric in (self.val_auroc, self.val_loss_real, self.val_loss_generated):
            metric.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with a per-step cosine schedule."""
        total_steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = build_optimizer(self.detector, self.settings, total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down how to build the detector again and what it was trained on: the file is enough to use it."""
        checkpoint[CHECKPOINT_KEY] = describe(self.detector, training=self.training_summary)
