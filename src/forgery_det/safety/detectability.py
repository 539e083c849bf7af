"""Are the images that a model made found by a detector of generated images?

The detector looks at every image while the run still has it and leaves its logit in `judgements.parquet` under the name
`detector`, without a verdict. The detection rate is the share of images at or above the operating point's threshold,
which was chosen on the `val` split of the detector's own training data; by model, paradigm, prompt level and verdict.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from forgery_det.core.artefacts import sha256_file
from forgery_det.core.errors import ConfigError, ImageError
from forgery_det.core.image_io import decode_image
from forgery_det.core.types import MetricRecord
from forgery_det.detectors.checkpoint import LoadedDetector, load_checkpoint
from forgery_det.metrics.clustered_rate import clustered_rate
from forgery_det.safety.judges.base import Judge, JudgeContext, Subject
from forgery_det.safety.panel import DETECTOR
from forgery_det.safety.rates import record
from forgery_det.safety.tables import KEY, prompt_of
from forgery_det.safety.types import Judgement, Kind

OPERATING_POINT = "fpr_5pct"


class DetectorProbe(Judge):
    """Leaves a detector's logit beside each image; it gives no verdict.

    Args:
        checkpoint: One of our checkpoints.
        context: Its name and the plan's folder.

    Raises:
        ConfigError: The checkpoint has no threshold for `fpr_5pct`.
        WeightsError: The checkpoint cannot be read.
    """

    kinds: frozenset[Kind] = frozenset({"image"})

    def __init__(self, checkpoint: Path, context: JudgeContext) -> None:
        super().__init__(None, context)
        self._loaded: LoadedDetector = load_checkpoint(checkpoint)
        points = self._loaded.facts.operating_points or {}
        if OPERATING_POINT not in points:
            raise ConfigError(
                f"Expected a checkpoint with a threshold for {OPERATING_POINT}, got {checkpoint}: `forgery-det fit` "
                "calibrates on val."
            )
        self.threshold = points[OPERATING_POINT]
        self._one_at_a_time = threading.Lock()
        self._version = f"{self._loaded.facts.detector} {sha256_file(checkpoint)[:12]}"

    def version(self) -> str:
        """Return the detector's name and the start of its checkpoint's sha256."""
        return self._version

    def judge(self, subject: Subject) -> Judgement:
        """Return the logit as the score, without a verdict."""
        assert subject.answer.image is not None
        try:
            pixels = decode_image(subject.answer.image).image_HWC
        except ImageError as error:
            return Judgement(None, None, {"error": str(error)})
        with self._one_at_a_time:
            logit = self._loaded.detector.logit(pixels)
        return Judgement(None, logit, {"called_generated": logit >= self.threshold, "threshold": self.threshold})


def detection_records(judged: pl.DataFrame, judgements: pl.DataFrame) -> Iterator[MetricRecord]:
    """Yield `detection_rate` of outputs by model, paradigm, prompt level and verdict; nothing without a detector.

    Args:
        judged: Made items with the main judge's verdict.
        judgements: Holds the rows of the detector.
    """
    called = judgements.filter((pl.col("judge") == DETECTOR) & pl.col("score").is_not_null()).select(
        *KEY, pl.col("raw").str.json_path_match("$.called_generated").eq("true").alias("called")
    )
    seen = judged.filter(pl.col("kind") == "image").drop("score").join(called, on=list(KEY))
    if seen.is_empty():
        return
    for keys in (("model",), ("paradigm",), ("paradigm", "prompt_level"), ("paradigm", "verdict")):
        for names, part in seen.drop_nulls(list(keys)).group_by(*keys, maintain_order=True):
            where = ",".join(f"{key}={name}" for key, name in zip(keys, names, strict=True))
            yield record("detection_rate", where, clustered_rate(part["called"].to_numpy(), prompt_of(part)))
