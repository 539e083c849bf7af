"""Write every format, then ask all of them and the detector about the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch

from forgery_det.core.progress import Progress, ProgressSink
from forgery_det.data.dataset import BadFile
from forgery_det.export.document import Subject
from forgery_det.export.formats import FORMATS
from forgery_det.export.graph import BundleGraph, trace
from forgery_det.export.images import SPLIT, FloatArray, choose_images, read_batches
from forgery_det.export.job import ONNX_NAME, Answer, ExportFormat, ExportJob, WrittenFormat
from forgery_det.export.parity import Answers, ParityRow, answer_all, compare

N_CALIBRATION = 128
"""Images of `val` on which int8 ranges are measured."""

_EAGER = "eager"


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was written and how it compares.

    Args:
        written: Format name to its files.
        rows: Parity of each.
        tried: int8 recipes that were measured and not taken.
        eager: The detector's own answers.
        n_val: Images in `val`.
        bad_files: Images that could not be read.
        dataset: Name of the dataset.
        manifest_hash: Of the dataset.
    """

    written: dict[str, WrittenFormat]
    rows: tuple[ParityRow, ...]
    tried: tuple[tuple[str, ParityRow], ...]
    eager: Answers
    n_val: int
    bad_files: tuple[BadFile, ...]
    dataset: str
    manifest_hash: str

    def to_json(self) -> dict[str, Any]:
        """Return the content of `parity.json`."""
        return {
            "dataset": self.dataset,
            "manifest_hash": self.manifest_hash,
            "split": SPLIT,
            "n_val": self.n_val,
            "n_measured": len(self.eager.path),
            "bad_files": [bad._asdict() for bad in self.bad_files],
            "formats": {row.format: row.to_json() for row in self.rows},
            "int8_recipes_not_taken": [{"recipe": words, **row.to_json()} for words, row in self.tried],
        }


def measure(subject: Subject, names: Sequence[str], bundle: Path, batch_size: int, progress: ProgressSink) -> Measured:
    """Write the formats into a folder and measure them on the subject's images.

    Args:
        subject: What is exported.
        names: Formats.
        bundle: Folder that gets the files.
        batch_size: Images a forward pass.
        progress: Told how far it is.

    Raises:
        ExportError: A format cannot be written.
    """
    with TemporaryDirectory() as scratch:
        job = _job(subject, names, bundle, Path(scratch), progress)
        ladders = {name: list(FORMATS.get(name).candidates()) for name in names}
        first = {name: ladder.pop(0) for name, ladder in ladders.items()}
        written = {}
        for name, format_ in first.items():
            progress(Progress(f"writing {name}", 0, None, "files"))
            written[name] = format_.write(job, bundle)
        opened = {name: format_.open(written[name]) for name, format_ in first.items()}
        ask = _Ask(subject, batch_size, progress)
        found, bad = ask({_EAGER: eager_answer(subject), **opened}, "parity")
        eager, rows, tried = found[_EAGER], [], []
        for name in names:
            row = ask.row(first[name], eager, found[name])
            for candidate in ladders[name] if not row.holds else ():
                tried.append((str(written[name].facts.get("recipe", "")), row))
                written[name] = candidate.write(job, bundle)
                again, _ = ask({name: candidate.open(written[name])}, f"parity, {name} again")
                row = ask.row(candidate, eager, again[name])
                if row.holds:
                    break
            rows.append(row)
    n_val = subject.manifest.frame.filter(pl.col("split") == SPLIT).height
    manifest = subject.manifest
    return Measured(written, tuple(rows), tuple(tried), eager, n_val, bad, manifest.name, manifest.digest())


def eager_answer(subject: Subject) -> Answer:
    """Return the detector's own answer, in eager torch on the CPU."""
    graph = BundleGraph(subject.detector.eval(), subject.facts.temperature).eval()

    def answer(image_BCHW: FloatArray) -> tuple[FloatArray, FloatArray]:
        with torch.no_grad():
            logit_B, score_B = graph(torch.from_numpy(image_BCHW))
        return logit_B.numpy(), score_B.numpy()

    return answer


@dataclass(frozen=True, slots=True)
class _Ask:
    """Asks runtimes about the subject's images."""

    subject: Subject
    batch_size: int
    progress: ProgressSink

    def __call__(self, answers: dict[str, Answer], stage: str) -> tuple[dict[str, Answers], tuple[BadFile, ...]]:
        images = self.subject.images
        batches = read_batches(images, self.subject.detector.preprocess, self.batch_size)
        return answer_all(answers, batches, len(images), stage, self.progress)

    def row(self, format_: ExportFormat, eager: Answers, found: Answers) -> ParityRow:
        return compare(format_.name, format_.precision, eager, found, self.subject.facts.operating_points)


def _job(subject: Subject, names: Sequence[str], bundle: Path, scratch: Path, progress: ProgressSink) -> ExportJob:
    progress(Progress("tracing", 0, None, "graphs"))
    program = trace(subject.detector, subject.facts.temperature, subject.form)
    onnx = None
    if any(FORMATS.get(name).needs_onnx for name in names):
        onnx = (bundle if "onnx" in names else scratch) / ONNX_NAME
        progress(Progress("translating to ONNX", 0, None, "graphs"))
        FORMATS.get("onnx").translate(program, onnx)

    def calibration() -> list[FloatArray]:
        chosen = choose_images(subject.images, N_CALIBRATION)
        batches = read_batches(chosen, subject.detector.preprocess, 1)
        return [batch.image_BCHW for group, _ in batches for batch in group]

    return ExportJob(subject.facts.detector, program, subject.form, onnx, calibration)
