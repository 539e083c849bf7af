"""`fit`: LightningCLI underneath, one folder out, the same command resumes.

A run folder gets `checkpoints/best.ckpt` (lowest validation loss), `checkpoints/last.ckpt` (to resume from), `logs/`
(CSV), `config.yaml` (give it back with `--config` to repeat the run) and, when all is done, `fit.json`. After
training, the best checkpoint is calibrated on `val` (temperature and operating points); nothing here reads `test`. A
detector in which nothing learns is scaled and calibrated on `val`, and that is all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
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
from forgery_det.detectors.base import Detector, FrozenFeatures
from forgery_det.detectors.ensemble import Ensemble
from forgery_det.training.cached import FeatureDataModule
from forgery_det.training.calibrate import calibrate
from forgery_det.training.callbacks import EpochProgress, ResumableEarlyStopping
from forgery_det.training.module import DetectorModule
from forgery_det.training.paths import BEST, CHECKPOINTS, CONFIG_NAME, FIT_RECORD, LAST, best_checkpoint
from forgery_det.training.quiet import quiet_lightning
from forgery_det.training.weigh import scaled_on_val
from forgery_det.transforms.preprocess import Preprocess

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
        features: Folder of frozen features that several runs share, which differ in `data.exclude_generators` only:
            those of the excluded images are computed as well. None: `features` in the run folder.
    """

    out: Path
    patience: int = 10
    ema_decay: float | None = None
    cache_features: bool = True
    features: Path | None = None


@dataclass(frozen=True, slots=True)
class FitResult:
    """Where a finished training lies.

    Args:
        run: Run folder.
        checkpoint: The best checkpoint, calibrated.
        note: What a user must know of this training; empty when it went the usual way.
    """

    run: Path
    checkpoint: Path
    note: str = ""


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
    result = FitResult(settings.out, best_checkpoint(settings.out), _note(cli.model.detector))
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_link_targets=True, skip_none=False))
    if _is_finished(settings.out, config):
        return result
    write_text(settings.out / CONFIG_NAME, yaml.safe_dump(config, sort_keys=True))
    images: ManifestDataModule = cli.datamodule
    learns = bool(cli.model.detector.trainable_parameters())
    facts = _train(cli, images, result, progress) if learns else _scale(cli, images, result, progress)
    RunRecord(
        command="fit",
        config=config,
        seed=config["seed_everything"],
        manifest_hash=images.manifest.digest(),
        durations_s={"fit": round(time.monotonic() - started, 1)},
        facts=facts,
    ).write(settings.out, FIT_RECORD)
    return result


def _train(cli: FitCLI, images: ManifestDataModule, result: FitResult, progress: ProgressSink) -> dict[str, Any]:
    """Train, calibrate, and return the facts of the run record."""
    device = cli.trainer.strategy.root_device
    data = _fed_by(cli.model, images, cli.config_init.run, device, progress)
    cli.model.training_summary = _summary(images, ("train", "val"))
    last = result.run / CHECKPOINTS / f"{LAST}.ckpt"
    cli.trainer.fit(cli.model, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    return {
        **calibrate(result.checkpoint, data, device).facts(),
        "epochs": cli.trainer.current_epoch,
        "best_val_loss": _best_loss(cli.trainer),
        "bad_files": [file._asdict() for file in data.bad_files],
    }


def _scale(cli: FitCLI, images: ManifestDataModule, result: FitResult, progress: ProgressSink) -> dict[str, Any]:
    """Scale and calibrate a detector in which nothing learns, and return the facts of the run record."""
    detector: Detector = cli.model.detector
    if isinstance(detector, Ensemble):
        raise ConfigError(
            "Expected a detector to train, got ensemble, whose members are trained on their own. Train each, then "
            "weigh them: `forgery-det ensemble CHECKPOINT CHECKPOINT --dataset DATASET --out RUN`."
        )
    fitted = scaled_on_val(
        detector,
        images.split("val"),
        result.checkpoint,
        batch_size=images.batch_size,
        num_workers=images.num_workers,
        device=cli.trainer.strategy.root_device,
        training=_summary(images, ("val",)),
        progress=progress,
    )
    return {**fitted, "epochs": 0}


def _note(detector: Detector) -> str:
    if detector.trainable_parameters():
        return ""
    return (
        f"Nothing in {detector.card.name} learns: its logit was scaled and calibrated on val, and the "
        "checkpoint holds it as an ensemble of one."
    )


def _preprocess_of(module: DetectorModule) -> Preprocess:
    return module.detector.preprocess


def _callbacks(settings: FitSettings, progress: ProgressSink) -> list[Callback]:
    best = ModelCheckpoint(
        settings.out / CHECKPOINTS, BEST, monitor="val/loss", mode="min", enable_version_counter=False
    )
    # Not `save_last` of the one above: that is written only when the best is, and a resumed run would train the epochs
    # since then again. After it, so that what is resumed knows the best so far.
    last = ModelCheckpoint(settings.out / CHECKPOINTS, LAST, enable_version_counter=False)
    stop = ResumableEarlyStopping(monitor="val/loss", mode="min", patience=settings.patience)
    average = [] if settings.ema_decay is None else [EMAWeightAveraging(decay=settings.ema_decay)]
    return [*average, stop, EpochProgress(progress), best, last]


def _fed_by(
    module: DetectorModule,
    images: ManifestDataModule,
    settings: FitSettings,
    device: torch.device,
    progress: ProgressSink,
) -> ManifestDataModule | FeatureDataModule:
    """Return what feeds the training: images, or the features of a frozen backbone computed once."""
    if not isinstance(module.detector, FrozenFeatures):
        return images
    folder = settings.features or settings.out / "features"
    shared = settings.features is not None
    features = FeatureDataModule(images, module.detector, folder, progress, whole_splits=shared, device=device)
    if settings.cache_features and images.augment is None:
        return features
    # The head's scaling comes from the plain features of `train` however the head is fed.
    features.fit_scaling()
    return images


def _summary(images: ManifestDataModule, splits: Sequence[str]) -> dict[str, Any]:
    """Return what a checkpoint remembers of the splits it was made with, without the excluded generators."""
    frames = {name: images.split(name).frame for name in splits}
    seen, val = pl.concat(frames.values()), frames["val"]
    return {
        "dataset": images.manifest.name,
        "manifest_hash": images.manifest.digest(),
        "generators": sorted(seen.filter(pl.col("label") == GENERATED)["generator"].unique().to_list()),
        "n_train": frames["train"].height if "train" in frames else 0,
        "n_val": val.height,
        "n_val_real": val.filter(pl.col("label") == REAL).height,
    }


def _best_loss(trainer: Trainer) -> float | None:
    scores = [one.best_model_score for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    known = [float(score) for score in scores if score is not None]
    return known[0] if known else None


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
