"""What a format is given to write its files, and what it says of them: the contract of `formats.FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from torch.export import ExportedProgram

from forgery_det.export.graph import InputForm
from forgery_det.export.images import FloatArray

ONNX_NAME = "model.onnx"
"""The fp32 ONNX file, from which others are made."""

Precision = Literal["fp32", "int8"]
Answer = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""`image_BCHW -> logit_B, score_B`, by a runtime."""


@dataclass(frozen=True, slots=True)
class ExportJob:
    """One detector on its way into a bundle.

    Args:
        name: Of the bundle.
        program: The traced graph.
        form: What the graph takes.
        onnx: The fp32 ONNX file, in the bundle or beside it; None where no format asked for needs it.
        calibration: Inputs of one image each, on which an int8 format measures ranges; read when they are asked for.
    """

    name: str
    program: ExportedProgram
    form: InputForm
    onnx: Path | None
    calibration: Callable[[], Sequence[FloatArray]]


@dataclass(frozen=True, slots=True)
class WrittenFormat:
    """What a format wrote.

    Args:
        file: The file that a runtime opens, below the bundle's folder.
        others: Further files that belong to it.
        runtime: Who opens it.
        precision: Of its arithmetic.
        facts: What else `bundle.json` should say of it.
    """

    file: Path
    runtime: str
    precision: Precision
    others: tuple[Path, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)


class ExportFormat(Protocol):
    """One format: `FORMATS` maps its name to a class like this."""

    name: ClassVar[str]
    needs_onnx: ClassVar[bool]
    precision: ClassVar[Precision]

    @classmethod
    def candidates(cls) -> Sequence[ExportFormat]:
        """Return the ways to write it, in the order in which they are tried until one keeps parity."""
        ...

    def write(self, job: ExportJob, bundle: Path) -> WrittenFormat:
        """Write the files into the bundle's folder.

        Raises:
            ExportError: The runtime's converter cannot; the text has its first line.
        """
        ...

    def open(self, written: WrittenFormat) -> Answer:
        """Return the runtime's answer to the written file."""
        ...
