"""Callbacks: resumable early stopping, and progress for terminals and for logs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping

from forgery_det.core.progress import Progress, ProgressSink


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that stays stopped: a run that is resumed after its last epoch does not train one epoch more."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Stop before the first step when the restored state had run out of patience."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class EpochProgress(Callback):
    """Tell a progress sink after each epoch."""

    def __init__(self, sink: ProgressSink) -> None:
        self.sink = sink

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Report the epoch that ended."""
        self.sink(Progress("train", trainer.current_epoch + 1, trainer.max_epochs, unit="epochs"))
