"""What `forgery-det predict` asks of a model, whether a checkpoint or a bundle; only a checkpoint imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError
from forgery_det.core.prediction_rows import BUNDLE_COLUMNS, COLUMNS, PredictionRow
from forgery_det.serving.bundle import DOCUMENT, is_bundle
from forgery_det.serving.cluster import ScoreBatch


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How a model is opened; sent to the workers of a cluster, which open it for themselves.

    Args:
        model: A checkpoint, or the folder of a bundle.
        operating_point: Whose threshold decides; None for the model's default.
        batch_size: Images a batch.
        device: `auto`, `cpu` or `cuda`; `auto` takes a CUDA device for a checkpoint and the processor for a bundle.
        threads: Processor threads of a bundle's runtime; None for all.
        model_format: Format of a bundle; None for its default.
        public_key: Ed25519 public key that the bundle must be signed for.
    """

    model: Path
    operating_point: str | None = None
    batch_size: int = 16
    device: str = "auto"
    threads: int | None = None
    model_format: str | None = None
    public_key: Path | None = None


class Scoring(Protocol):
    """A model that is ready."""

    columns: tuple[str, ...]
    threshold: float | None
    operating_point: str
    identity: Mapping[str, str]

    def rows(self, paths: Iterable[str]) -> Iterator[PredictionRow]:
        """Yield a row for each path, in order."""
        ...


def open_scoring(options: ScoringOptions) -> Scoring:
    """Open the model.

    Raises:
        ConfigError: An option does not fit the kind of model.
        BundleError: The bundle cannot be used.
        WeightsError: The checkpoint cannot be used.
    """
    if options.batch_size < 1:
        raise ConfigError(f"Expected `batch_size` of at least 1, got {options.batch_size}.")
    return _Bundle(options) if is_bundle(options.model) else _Checkpoint(options)


def open_scorer(options: ScoringOptions) -> ScoreBatch:
    """Open the model on a worker of a cluster and return what scores a batch there."""
    return partial(_score, open_scoring(options))


def _score(scoring: Scoring, paths: Iterable[str]) -> list[PredictionRow]:
    return list(scoring.rows(paths))


_CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


class _Bundle:
    def __init__(self, options: ScoringOptions) -> None:
        from forgery_det.serving.predictor import Predictor

        self.predictor = Predictor(
            options.model, format=options.model_format, threads=options.threads, batch_size=options.batch_size,
            public_key=options.public_key, providers=_CUDA if options.device == "cuda" else None,
        )  # fmt: skip
        facts = self.predictor.facts
        self.columns: tuple[str, ...] = BUNDLE_COLUMNS
        self.threshold: float | None = facts.threshold(options.operating_point)
        self.operating_point: str = options.operating_point or facts.default_operating_point or "none"
        self.identity: Mapping[str, str] = {
            "bundle": sha256_file(facts.folder / DOCUMENT),
            "model_format": self.predictor.format.name,
        }

    def rows(self, paths: Iterable[str]) -> Iterator[PredictionRow]:
        for found in self.predictor.predict(paths, operating_point=self._point()):
            yield PredictionRow(found.key, found.logit, found.score, found.decision, found.error, found.warnings)

    def _point(self) -> str | None:
        return None if self.threshold is None else self.operating_point


class _Checkpoint:
    def __init__(self, options: ScoringOptions) -> None:
        from forgery_det.detectors.checkpoint import load_checkpoint
        from forgery_det.evaluation.predict import DEFAULT_POINT, operating_threshold

        for name in ("threads", "model_format", "public_key"):
            if getattr(options, name) is not None:
                raise ConfigError(
                    f"Expected a bundle for `--{name}`, got the checkpoint {options.model}. `forgery-det export` makes "
                    "a bundle of it."
                )
        self.options = options
        self.loaded = load_checkpoint(options.model)
        self.columns: tuple[str, ...] = COLUMNS
        self.operating_point: str = options.operating_point or DEFAULT_POINT
        self.threshold: float | None = operating_threshold(self.loaded.facts, self.operating_point)
        self.identity: Mapping[str, str] = {"checkpoint": sha256_file(options.model)}

    def rows(self, paths: Iterable[str]) -> Iterator[PredictionRow]:
        from forgery_det.evaluation.predict import predict

        yield from predict(
            self.loaded, paths, operating_point=self.operating_point, batch_size=self.options.batch_size,
            device=self.options.device,
        )  # fmt: skip
