"""`fit`: LightningCLI underneath, one folder out, the same command resumes.

A run folder gets `checkpoints/best.ckpt` (lowest validation loss), `checkpoints/last.ckpt` (to resume from), `logs/`
(CSV), `config.yaml` (give it back with `--config` to repeat the run) and, when all is done, `fit.json`. After
training, the best checkpoint is calibrated on `val` (temperature and operating points); nothing here reads `test`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from forgery_det.core.artefacts import write_text
from forgery_det.core.errors import ConfigError
from forgery_det.core.progress import ProgressSink, silent
from forgery_det.core.runs import RunRecord
from forgery_det.core.types import GENERATED, REAL
from forgery_det.data.datamodule import ManifestDataModule
from forgery_det.detectors.base import FrozenFeatures
from forgery_det.training.cached import FeatureDataModule
from forgery_det.training.calibrate import calibrate
from forgery_det.training.callbacks import EpochProgress, ResumableEarlyStopping
from forgery_det.training.module import DetectorModule
from forgery_det.training.quiet import quiet_lightning
from forgery_det.transforms.preprocess import Preprocess

FIT_RECORD, CONFIG_NAME = "fit.json", "config.yaml"
CHECKPOINTS, BEST, LAST = "checkpoints", "best", "last"

_DEFAULTS = {
    "max_epochs": 50,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
}


@dataclass(frozen=True)  # no slots: jsonargparse reads the defaults from __dict__
class FitSettings:
    """What `fit` decides around the trainer.

    Args:
        out: Run folder.
        patience: Epochs without a lower validation loss before training stops.
        ema_decay: Decay of an exponential moving average of the weights, which is then validated and kept; None: off.
        cache_features: Compute frozen features once. Only for detectors with a frozen backbone, without augmentation.
    """

    out: Path
    patience: int = 10
    ema_decay: float | None = None
    cache_features: bool = True


@dataclass(frozen=True, slots=True)
class FitResult:
    """Where a finished training lies.

    Args:
        run: Run folder.
        checkpoint: The best checkpoint, calibrated.
    """

    run: Path
    checkpoint: Path


class FitCLI(LightningCLI):
    """LightningCLI for one module and one data module; it parses and builds, `fit` runs."""

    def __init__(self, arguments: Sequence[str], progress: ProgressSink) -> None:
        self.progress = progress
        super().__init__(
            DetectorModule,
            ManifestDataModule,
            run=False,
            args=list(arguments),
            seed_everything_default=0,
            save_config_callback=None,
            trainer_defaults=_DEFAULTS,
            parser_kwargs={"prog": "forgery-det fit"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our settings, and give the data the preprocessing of the detector."""
        parser.add_class_arguments(FitSettings, "run")
        parser.link_arguments("model", "data.preprocess", compute_fn=_preprocess_of, apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with our callbacks beside the user's, and a CSV logger unless another one is named."""
        settings: FitSettings = self.config_init.run
        named = self.config_init.trainer
        callbacks = [*(named.callbacks or []), *_callbacks(settings, self.progress)]
        # A resumed run writes its own version_N folder: the lines of the first part are kept.
        logger = CSVLogger(settings.out, name="logs") if named.logger in (None, True) else named.logger
        return super().instantiate_trainer(callbacks=callbacks, logger=logger, default_root_dir=settings.out, **kwargs)


def fit(arguments: Sequence[str], progress: ProgressSink = silent) -> FitResult:
    """Train as the arguments of LightningCLI say; resume when the run folder holds an unfinished training.

    Args:
        arguments: `--config FILE`, `--run.out DIR`, `--model.*`, `--data.*`, `--trainer.*`, `--seed_everything N`.
        progress: Told about features and epochs.

    Raises:
        ConfigError: The run folder holds another training, or a setting is out of range.
    """
    with quiet_lightning():
        return _fit(FitCLI(arguments, progress), progress)


def _fit(cli: FitCLI, progress: ProgressSink) -> FitResult:
    started = time.monotonic()
    settings: FitSettings = cli.config_init.run
    checkpoints = settings.out / CHECKPOINTS
    result = FitResult(settings.out, checkpoints / f"{BEST}.ckpt")
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_link_targets=True, skip_none=False))
    if _is_finished(settings.out, config):
        return result
    write_text(settings.out / CONFIG_NAME, yaml.safe_dump(config, sort_keys=True))
    images: ManifestDataModule = cli.datamodule
    data = _fed_by(cli.model, images, settings, progress)
    cli.model.training_summary = _summary(images)
    last = checkpoints / f"{LAST}.ckpt"
    cli.trainer.fit(cli.model, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    calibration = calibrate(result.checkpoint, data)
    RunRecord(
        command="fit",
        config=config,
        seed=config["seed_everything"],
        manifest_hash=images.manifest.digest(),
        durations_s={"fit": round(time.monotonic() - started, 1)},
        facts={
            **calibration,
            "epochs": cli.trainer.current_epoch,
            "best_val_loss": _best_loss(cli.trainer),
            "bad_files": [file._asdict() for file in data.bad_files],
        },
    ).write(settings.out, FIT_RECORD)
    return result


def _preprocess_of(module: DetectorModule) -> Preprocess:
    return module.detector.preprocess


def _callbacks(settings: FitSettings, progress: ProgressSink) -> list[Callback]:
    keep = ModelCheckpoint(
        settings.out / CHECKPOINTS, BEST, monitor="val/loss", mode="min", save_last=True, enable_version_counter=False
    )
    stop = ResumableEarlyStopping(monitor="val/loss", mode="min", patience=settings.patience)
    average = [] if settings.ema_decay is None else [EMAWeightAveraging(decay=settings.ema_decay)]
    return [*average, stop, EpochProgress(progress), keep]


def _fed_by(
    module: DetectorModule, images: ManifestDataModule, settings: FitSettings, progress: ProgressSink
) -> ManifestDataModule | FeatureDataModule:
    """Return what feeds the training: images, or the features of a frozen backbone computed once."""
    if not isinstance(module.detector, FrozenFeatures):
        return images
    features = FeatureDataModule(images, module.detector, settings.out / "features", progress)
    if settings.cache_features and images.augment is None:
        return features
    # The head's scaling comes from the plain features of `train` however the head is fed.
    features.fit_scaling()
    return images


def _summary(images: ManifestDataModule) -> dict[str, Any]:
    """Return what a checkpoint remembers of its training data, without the excluded generators."""
    train, val = images.split("train").frame, images.split("val").frame
    seen = pl.concat([train, val])
    return {
        "dataset": images.dataset.resolve().name,
        "manifest_hash": images.manifest.digest(),
        "generators": sorted(seen.filter(pl.col("label") == GENERATED)["generator"].unique().to_list()),
        "n_train": train.height,
        "n_val": val.height,
        "n_val_real": val.filter(pl.col("label") == REAL).height,
    }


def _best_loss(trainer: Trainer) -> float | None:
    (keeper,) = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return None if keeper.best_model_score is None else float(keeper.best_model_score)


def _is_finished(out: Path, config: Mapping[str, Any]) -> bool:
    """Return True when `out` holds this very training, finished; refuse a folder that holds another one."""
    path = out / CONFIG_NAME
    if not path.is_file():
        return False
    stored, asked = _flat(yaml.safe_load(path.read_text(encoding="utf-8"))), _flat(config)
    different = sorted(key for key in stored.keys() | asked.keys() if stored.get(key) != asked.get(key))
    if different:
        raise ConfigError(
            f"Expected the configuration that {path} holds, got other values of {', '.join(different[:5])}. "
            "Give another `--run.out`, or delete that folder to train anew."
        )
    return (out / FIT_RECORD).is_file()


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
