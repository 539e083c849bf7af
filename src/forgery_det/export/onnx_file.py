"""ONNX in fp32, and onnxruntime's answer to an ONNX file.

torch's exporter translates the traced program into opset 20 (`ai.onnx`, the version that has `GridSample` in its
present form and that onnxruntime and OpenVINO both read) and folds constants; onnx's checker then reads the result as a
stranger would. The weights lie inside the file, so that one file is the model.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # ships no types
import torch
from torch.export import ExportedProgram

from forgery_det.core.artefacts import atomic_path
from forgery_det.export.errors import ExportError
from forgery_det.export.graph import INPUT_NAME, OUTPUT_NAMES, first_line
from forgery_det.export.images import FloatArray
from forgery_det.export.job import Answer, ExportJob, Precision, WrittenFormat

OPSET = 20


class Onnx:
    """`model.onnx`, fp32."""

    name: ClassVar[str] = "onnx"
    needs_onnx: ClassVar[bool] = True
    precision: ClassVar[Precision] = "fp32"

    @classmethod
    def candidates(cls) -> tuple[Onnx, ...]:
        """Return the one way to write it."""
        return (cls(),)

    @staticmethod
    def translate(program: ExportedProgram, path: Path) -> None:
        """Write the job's ONNX file; see `write_onnx`."""
        write_onnx(program, path)

    def write(self, job: ExportJob, bundle: Path) -> WrittenFormat:
        """Return the job's ONNX file, which lies in the bundle when this format is asked for."""
        del bundle
        if job.onnx is None:
            raise AssertionError("the job has no ONNX file")
        return WrittenFormat(job.onnx, "onnxruntime", self.precision, facts={"opset": OPSET})

    def open(self, written: WrittenFormat) -> Answer:
        """Return onnxruntime's answer on the CPU."""
        return open_onnx(written.file)


def write_onnx(program: ExportedProgram, path: Path) -> None:
    """Translate a traced graph into an ONNX file.

    Raises:
        ExportError: An operation has no translation, or the file breaks ONNX's rules.
    """
    try:
        with quiet_exporter():
            translated = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=[INPUT_NAME], output_names=list(OUTPUT_NAMES),
                verbose=False,
            )  # fmt: skip
        if translated is None:
            raise AssertionError("torch.onnx.export with dynamo=True returns a program")
        with atomic_path(path) as temporary:
            translated.save(temporary, external_data=False)
        onnx.checker.check_model(path, full_check=True)
        _refuse_scattered_sums(onnx.load(path, load_external_data=False))
    except ExportError:
        raise
    except Exception as error:  # the exporter and onnx raise errors of many unrelated classes
        raise ExportError(
            f"Expected a graph that ONNX can hold, got {type(error).__name__}: {_cause(error)}"
        ) from error


def _refuse_scattered_sums(model: onnx.ModelProto) -> None:
    """Refuse what onnxruntime answers differently from run to run, which parity would only catch by luck."""
    for node in model.graph.node:
        reduces = [entry.s for entry in node.attribute if entry.name == "reduction"]
        if node.op_type in ("ScatterND", "ScatterElements") and reduces and reduces != [b"none"]:
            raise ExportError(
                f"Expected a graph without sums into scattered places, got {node.op_type} with reduction "
                f"{reduces[0].decode()}: onnxruntime adds in several threads at once and loses terms. Write the sum of "
                "the detector as a gather or a matrix product."
            )


def open_onnx(path: Path, threads: int = 0) -> Answer:
    """Return onnxruntime's answer to an ONNX file on the CPU.

    Args:
        path: The file.
        threads: Of one operation; 0 leaves it to onnxruntime.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(image_BCHW: FloatArray) -> tuple[FloatArray, FloatArray]:
        logit_B, score_B = session.run(list(OUTPUT_NAMES), {INPUT_NAME: image_BCHW})
        return np.asarray(logit_B), np.asarray(score_B)

    return answer


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's own chatter (steps with emojis, notes on its internals) from terminal and tests.

    What it has to say of a failure is in the error that it raises.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """Return what the innermost error says: the outer ones only say that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
