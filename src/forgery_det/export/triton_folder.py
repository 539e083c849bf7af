"""A Triton model repository: `triton/<name>/config.pbtxt` and `1/model.onnx`, to be mounted as it is.

Triton's batcher adds and removes the first axis, so `dims` leaves it out; the scalar that remains of an output is
declared as one value and reshaped to none, as Triton's model configuration asks for outputs of shape [batch].
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from forgery_det.core.artefacts import atomic_path, write_text
from forgery_det.export.graph import INPUT_NAME, OUTPUT_NAMES, InputForm
from forgery_det.export.job import Answer, ExportJob, Precision, WrittenFormat
from forgery_det.export.onnx_file import open_onnx

MAX_BATCH = 64
QUEUE_DELAY_US = 2000


class Triton:
    """`triton/<name>/`, fp32 ONNX."""

    name: ClassVar[str] = "triton"
    needs_onnx: ClassVar[bool] = True
    precision: ClassVar[Precision] = "fp32"

    @classmethod
    def candidates(cls) -> tuple[Triton, ...]:
        """Return the one way to write it."""
        return (cls(),)

    def write(self, job: ExportJob, bundle: Path) -> WrittenFormat:
        """Copy the ONNX file and write its configuration."""
        if job.onnx is None:
            raise AssertionError("the job has no ONNX file")
        folder = bundle / "triton" / job.name
        model, config = folder / "1" / "model.onnx", folder / "config.pbtxt"
        with atomic_path(model) as temporary:
            shutil.copyfile(job.onnx, temporary)
        write_text(config, model_config(job.name, job.form))
        return WrittenFormat(model, "triton", self.precision, (config,))

    def open(self, written: WrittenFormat) -> Answer:
        """Return onnxruntime's answer, which is Triton's backend for this platform."""
        return open_onnx(written.file)


def model_config(name: str, form: InputForm) -> str:
    """Return Triton's `config.pbtxt`.

    Example:
        >>> print(model_config("a", InputForm(None, 224, 224, has_views=False)).splitlines()[6])
          dims: [ 3, 224, 224 ]
    """
    dims = ", ".join("-1" if side is None else str(side) for side in form.shape[1:])
    lines = [
        f'name: "{name}"', 'platform: "onnxruntime_onnx"', f"max_batch_size: {MAX_BATCH}",
        "input [ {", f'  name: "{INPUT_NAME}"', "  data_type: TYPE_FP32", f"  dims: [ {dims} ]", "} ]",
    ]  # fmt: skip
    for output in OUTPUT_NAMES:
        lines += ["output [ {", f'  name: "{output}"', "  data_type: TYPE_FP32", "  dims: [ 1 ]"]
        lines += ["  reshape { shape: [ ] }", "} ]"]
    lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}")
    return "\n".join(lines) + "\n"
