"""OpenVINO: the ONNX file in Intel's own form, `openvino/model.xml` with `model.bin`.

Weights stay fp32: OpenVINO's default of halving them on saving moves logits by more than the tolerance. The inference
precision is set to fp32 as well, because on processors with bfloat16 units the default is bfloat16.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import openvino  # type: ignore[import-untyped]  # ships no types

from forgery_det.core.own_thread import in_own_thread
from forgery_det.export.errors import ExportError
from forgery_det.export.graph import INPUT_NAME, OUTPUT_NAMES, first_line
from forgery_det.export.images import FloatArray
from forgery_det.export.job import Answer, ExportJob, Precision, WrittenFormat

FILE_NAME = "openvino/model.xml"
CPU_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVino:
    """`openvino/model.xml` and `openvino/model.bin`, fp32."""

    name: ClassVar[str] = "openvino"
    needs_onnx: ClassVar[bool] = True
    precision: ClassVar[Precision] = "fp32"

    @classmethod
    def candidates(cls) -> tuple[OpenVino, ...]:
        """Return the one way to write it."""
        return (cls(),)

    def write(self, job: ExportJob, bundle: Path) -> WrittenFormat:
        """Convert the ONNX file.

        Raises:
            ExportError: OpenVINO does not know an operation.
        """
        path = bundle / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # read_model, not convert_model: the same conversion without the converter's telemetry.
            model = openvino.Core().read_model(str(job.onnx))
            for number, operation in enumerate(model.get_ordered_ops()):
                # Names count the operations of the whole process; equal inputs must give equal bytes.
                if operation.get_type_name() != "Parameter":
                    operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except Exception as error:  # OpenVINO's errors share no base below RuntimeError
            raise ExportError(f"Expected a graph that OpenVINO can read, got: {first_line(error)}") from error
        return WrittenFormat(path, "openvino", self.precision, (path.with_suffix(".bin"),))

    def open(self, written: WrittenFormat) -> Answer:
        """Return OpenVINO's answer on the CPU."""
        compiled = in_own_thread(lambda: openvino.Core().compile_model(str(written.file), "CPU", CPU_PROPERTIES))

        def answer(image_BCHW: FloatArray) -> tuple[FloatArray, FloatArray]:
            found = compiled({INPUT_NAME: image_BCHW})
            logit_B, score_B = (np.array(found[name]) for name in OUTPUT_NAMES)
            return logit_B, score_B

        return answer
