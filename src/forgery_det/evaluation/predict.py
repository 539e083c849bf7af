"""Scores for loose files from a checkpoint: the same decoder, preprocessing and temperature as in evaluation.

`score = sigmoid(logit / temperature)`; the decision is `generated` where `logit >= threshold` of a named operating
point. A bad file is a row with its error, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from os import fspath
from pathlib import Path

import numpy as np
import torch

from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_file
from forgery_det.core.image_paths import expand_paths
from forgery_det.core.prediction_rows import Decision, PredictionRow, format_rows
from forgery_det.core.registry import did_you_mean
from forgery_det.detectors.base import Detector, to_tensor
from forgery_det.detectors.checkpoint import CheckpointFacts, LoadedDetector, load_checkpoint
from forgery_det.evaluation.score import NOT_FINITE, choose_device, score_of
from forgery_det.transforms.preprocess import ImageArray

__all__ = ["DEFAULT_POINT", "PredictionRow", "expand_paths", "format_rows", "operating_threshold", "predict"]

DEFAULT_POINT = "fpr_5pct"
"""Operating point of a decision when none is asked for."""


def predict(
    model: Path | LoadedDetector,
    paths: Iterable[str | Path],
    *,
    operating_point: str = DEFAULT_POINT,
    batch_size: int = 16,
    device: str = "auto",
) -> Iterator[PredictionRow]:
    """Yield one row for each path, in the order of the paths, while they are read.

    The model is loaded and the options are checked at the call, not at the first row.

    Args:
        model: One of our checkpoints, or what `load_checkpoint` returned for it.
        paths: Files; `expand_paths` makes them from folders and globs. Read lazily.
        operating_point: Whose threshold decides; ignored (decision `n/a`) when the checkpoint has no operating points.
        batch_size: Images a forward pass.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: Unknown operating point or device, or `batch_size` below 1.
        WeightsError: The checkpoint does not fit its detector.
    """
    if batch_size < 1:
        raise ConfigError(f"Expected `batch_size` of at least 1, got {batch_size}.")
    loaded = model if isinstance(model, LoadedDetector) else load_checkpoint(Path(model))
    threshold = operating_threshold(loaded.facts, operating_point)
    target = choose_device(device)
    scorer = _Scorer(loaded.detector.to(target).eval(), target, loaded.facts.temperature, threshold)
    return scorer.rows(paths, batch_size)


def operating_threshold(facts: CheckpointFacts, operating_point: str = DEFAULT_POINT) -> float | None:
    """Return the logit from which on the decision is "generated"; None when the checkpoint has no operating points.

    Raises:
        ConfigError: The checkpoint has operating points, but not this one.
    """
    if not facts.operating_points:
        return None
    if operating_point not in facts.operating_points:
        known = did_you_mean(operating_point, facts.operating_points)
        raise ConfigError(f"Unknown operating point {operating_point!r}: {known}")
    return facts.operating_points[operating_point]


@dataclass(frozen=True, slots=True, eq=False)
class _Scorer:
    """A detector on its device with what turns a logit into a row."""

    detector: Detector
    device: torch.device
    temperature: float | None
    threshold: float | None

    def rows(self, paths: Iterable[str | Path], batch_size: int) -> Iterator[PredictionRow]:
        waiting = iter(paths)
        while batch := [fspath(path) for path in islice(waiting, batch_size)]:
            views = [self._read(path) for path in batch]
            logit = self._logits([(index, view) for index, view in enumerate(views) if not isinstance(view, str)])
            for index, (path, view) in enumerate(zip(batch, views, strict=True)):
                yield self._failed(path, view) if isinstance(view, str) else self._row(path, logit[index])

    def _read(self, path: str) -> ImageArray | str:
        """Return the preprocessed image, or the error's text."""
        try:
            if Path(path).is_dir():
                return f"no_images: Expected images in the folder, got none ({path})"
            return self.detector.preprocess(decode_file(Path(path)).image_HWC)
        except ImageError as error:
            return str(error)
        except ValueError as error:
            # A null byte in a name never reaches the file system.
            return f"unreadable: Expected a path, got {path!r} ({error})"

    def _logits(self, views: list[tuple[int, ImageArray]]) -> dict[int, float]:
        """Return index -> logit; only images of one shape share a forward pass."""
        shapes: dict[tuple[int, ...], list[tuple[int, ImageArray]]] = {}
        for index, view in views:
            shapes.setdefault(view.shape, []).append((index, view))
        found: dict[int, float] = {}
        for group in shapes.values():
            image_BCHW = torch.stack([to_tensor(view) for _, view in group]).to(self.device)
            with torch.inference_mode():
                logit_B = self.detector(image_BCHW).double().cpu().tolist()
            found |= {index: logit for (index, _), logit in zip(group, logit_B, strict=True)}
        return found

    def _row(self, path: str, logit: float) -> PredictionRow:
        if not np.isfinite(logit):
            return self._failed(path, f"{NOT_FINITE}: Expected a number from the detector, got {logit}")
        decision: Decision = "n/a"
        if self.threshold is not None:
            decision = "generated" if logit >= self.threshold else "real"
        return PredictionRow(path, logit, float(score_of(np.array(logit), self.temperature)), decision)

    @staticmethod
    def _failed(path: str, error: str) -> PredictionRow:
        return PredictionRow(path, None, None, None, error)
