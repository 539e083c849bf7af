"""torch.export's own file, `model.pt2`: for platforms that run torch, and for compilers that start from its graph."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from forgery_det.export.errors import ExportError
from forgery_det.export.graph import first_line
from forgery_det.export.images import FloatArray
from forgery_det.export.job import Answer, ExportJob, Precision, WrittenFormat

FILE_NAME = "model.pt2"


class Pt2:
    """`model.pt2`, fp32."""

    name: ClassVar[str] = "pt2"
    needs_onnx: ClassVar[bool] = False
    precision: ClassVar[Precision] = "fp32"

    @classmethod
    def candidates(cls) -> tuple[Pt2, ...]:
        """Return the one way to write it."""
        return (cls(),)

    def write(self, job: ExportJob, bundle: Path) -> WrittenFormat:
        """Save the traced program.

        Raises:
            ExportError: torch cannot write it.
        """
        path = bundle / FILE_NAME
        # torch pickles the inputs it was traced with into the file; without them, no pickle is in it.
        job.program.example_inputs = None
        try:
            # Not through a temporary name: the file's name becomes part of the archive, and equal inputs must give
            # equal bytes. The folder is not finished before `bundle.json` is there.
            torch.export.save(job.program, path)
        except Exception as error:  # torch.export raises errors of a dozen unrelated classes
            raise ExportError(
                f"Expected a program that torch.export.save can write, got: {first_line(error)}"
            ) from error
        return WrittenFormat(path, "torch", self.precision, facts={"torch": torch.__version__})

    def open(self, written: WrittenFormat) -> Answer:
        """Return the answer of the program read back."""
        module = torch.export.load(written.file).module()

        def answer(image_BCHW: FloatArray) -> tuple[FloatArray, FloatArray]:
            with torch.inference_mode():
                logit_B, score_B = module(torch.from_numpy(image_BCHW))
            return logit_B.numpy(), score_B.numpy()

        return answer
