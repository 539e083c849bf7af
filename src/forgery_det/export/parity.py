"""The proof: every format is asked about the same real images as the detector, and the answers are set side by side.

fp32 formats must give each logit to within `FP32_TOLERANCE * max(1, |logit|)`. An int8 format cannot: it must keep the
AUROC on `val` to within `INT8_AUROC_LOSS`, and the decisions of all but `INT8_FLIPS` of the images at every operating
point, because a logit may move as a whole and keep its AUROC while no threshold fits it any more. What else is measured
(mean difference, difference of scores) is written down and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forgery_det.core.progress import Progress, ProgressSink, silent
from forgery_det.data.dataset import BadFile
from forgery_det.export.errors import ParityError
from forgery_det.export.images import InputBatch
from forgery_det.export.job import Answer, Precision
from forgery_det.metrics.ranking import auroc

FP32_TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of it where it is beyond 1."""

INT8_AUROC_LOSS = 0.005
"""Largest loss of AUROC on `val`: half a point."""

INT8_FLIPS = 0.05
"""Largest share of images whose decision at an operating point may flip; two images are always allowed."""

_N_WORST = 5


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one runtime says about the images, in their order.

    Args:
        image_id: One an image, as all others.
        path: Relative to the dataset folder.
        label_N: 1 = generated.
        logit_N: float64.
        score_N: float64.
    """

    image_id: tuple[str, ...]
    path: tuple[str, ...]
    label_N: NDArray[np.int64]
    logit_N: NDArray[np.float64]
    score_N: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One format against the detector.

    Args:
        format: Its name.
        precision: Decides the rule.
        n: Images.
        max_abs: Largest |logit difference|.
        mean_abs: Mean of it.
        max_relative: Largest of it over max(1, |logit|), which the fp32 rule looks at.
        max_score: Largest difference of the score.
        auroc: Of the format on these images.
        auroc_eager: Of the detector.
        flips: Operating point to the decisions that differ.
        worst: Images with the largest differences: path, both logits.
    """

    format: str
    precision: Precision
    n: int
    max_abs: float
    mean_abs: float
    max_relative: float
    max_score: float
    auroc: float
    auroc_eager: float
    flips: Mapping[str, int]
    worst: tuple[tuple[str, float, float], ...]

    @property
    def auroc_loss(self) -> float:
        """AUROC that the format loses; negative where it happens to gain."""
        return self.auroc_eager - self.auroc

    @property
    def flips_allowed(self) -> int:
        """Images whose decision may flip at each operating point."""
        return max(2, int(INT8_FLIPS * self.n))

    @property
    def holds(self) -> bool:
        """Whether the format keeps its rule; a logit that is no number breaks it."""
        if self.precision == "int8":
            keeps_decisions = max(self.flips.values(), default=0) <= self.flips_allowed
            return bool(np.isfinite(self.max_abs)) and self.auroc_loss <= INT8_AUROC_LOSS and keeps_decisions
        return self.max_relative <= FP32_TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        int8 = {"auroc_loss": INT8_AUROC_LOSS, "flips": self.flips_allowed}
        rule = int8 if self.precision == "int8" else {"max_relative": FP32_TOLERANCE}
        return {
            "precision": self.precision, "n": self.n, "max_abs": self.max_abs, "mean_abs": self.mean_abs,
            "max_relative": self.max_relative, "max_score": self.max_score, "auroc": self.auroc,
            "auroc_eager": self.auroc_eager, "auroc_loss": self.auroc_loss, "flips": dict(self.flips),
            "rule": rule, "holds": self.holds,
            "worst": [dict(zip(("path", "eager", "format"), row, strict=True)) for row in self.worst],
        }  # fmt: skip


def answer_all(
    answers: Mapping[str, Answer],
    batches: Iterable[tuple[tuple[InputBatch, ...], tuple[BadFile, ...]]],
    n_images: int,
    stage: str,
    progress: ProgressSink = silent,
) -> tuple[dict[str, Answers], tuple[BadFile, ...]]:
    """Ask several runtimes about the same images; each image is decoded once.

    Args:
        answers: Name to runtime.
        batches: From `read_batches`.
        n_images: For the progress.
        stage: What is going on, for the progress.
        progress: Told after every batch.
    """
    bad: list[BadFile] = []
    seen: list[InputBatch] = []
    found: dict[str, list[tuple[Any, Any]]] = {name: [] for name in answers}
    done = 0
    progress(Progress(stage, done, n_images))
    for group, unusable in batches:
        bad += unusable
        for batch in group:
            for name, answer in answers.items():
                found[name].append(answer(batch.image_BCHW))
            # The pixels have been seen: only names stay in memory.
            seen.append(InputBatch(batch.image_BCHW[:0], batch.image_id, batch.path, batch.label))
        done += sum(len(batch.label) for batch in group) + len(unusable)
        progress(Progress(stage, done, n_images))
    return {name: _joined(seen, parts) for name, parts in found.items()}, tuple(bad)


def compare(
    name: str, precision: Precision, eager: Answers, found: Answers, operating_points: Mapping[str, float] | None
) -> ParityRow:
    """Set a format's answers beside the detector's.

    Example:
        >>> one = Answers(("a", "b"), ("a.png", "b.png"), np.array([0, 1]), np.array([-1.0, 2.0]), np.array([0.3, 0.9]))
        >>> row = compare("onnx", "fp32", one, one, {"balanced": 0.0})
        >>> row.max_abs, row.auroc, row.holds
        (0.0, 1.0, True)
    """
    difference_N = np.abs(found.logit_N - eager.logit_N)
    difference_N = np.where(np.isfinite(found.logit_N), difference_N, np.inf)
    finite_N = np.where(np.isfinite(found.logit_N), found.logit_N, 0.0)
    order = np.argsort(-difference_N, kind="stable")[:_N_WORST]
    return ParityRow(
        format=name,
        precision=precision,
        n=len(difference_N),
        max_abs=float(difference_N.max()),
        mean_abs=float(difference_N.mean()),
        max_relative=float((difference_N / np.maximum(1.0, np.abs(eager.logit_N))).max()),
        max_score=float(np.abs(found.score_N - eager.score_N).max()),
        auroc=auroc(found.label_N, finite_N),
        auroc_eager=auroc(eager.label_N, eager.logit_N),
        flips={
            point: int(((finite_N >= threshold) != (eager.logit_N >= threshold)).sum())
            for point, threshold in (operating_points or {}).items()
        },
        worst=tuple((eager.path[k], float(eager.logit_N[k]), float(found.logit_N[k])) for k in order),
    )


def check_parity(rows: Iterable[ParityRow]) -> None:
    """Refuse formats that break their rule.

    Raises:
        ParityError: The first such format, with the images and both logits.
    """
    for row in rows:
        if row.holds:
            continue
        if row.precision == "int8":
            what = (
                f"Expected {row.format} to lose at most {100 * INT8_AUROC_LOSS:g} points of AUROC on `val` and to flip "
                f"at most {row.flips_allowed} decisions at an operating point, got {100 * row.auroc_loss:.2f} points "
                f"({row.auroc_eager:.4f} to {row.auroc:.4f}, n = {row.n}) and {dict(row.flips)} flips"
            )
        else:
            what = (
                f"Expected the logits of {row.format} within {FP32_TOLERANCE:g} of the detector's, as a share of "
                f"max(1, |logit|), got {row.max_relative:.2g} on {row.n} images of `val`"
            )
        images = "; ".join(f"{path}: detector {eager:.6f}, {row.format} {got:.6f}" for path, eager, got in row.worst)
        raise ParityError(f"{what}. No bundle was written. Largest differences: {images}.")


def _joined(seen: list[InputBatch], parts: list[tuple[Any, Any]]) -> Answers:
    def join(arrays: list[Any]) -> NDArray[np.float64]:
        return np.concatenate(arrays).astype(np.float64) if arrays else np.empty(0)

    return Answers(
        tuple(image_id for batch in seen for image_id in batch.image_id),
        tuple(path for batch in seen for path in batch.path),
        np.array([label for batch in seen for label in batch.label], dtype=np.int64),
        join([logit_B for logit_B, _ in parts]),
        join([score_B for _, score_B in parts]),
    )
