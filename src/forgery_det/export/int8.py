"""Static int8 ONNX: weights and activations in 8 bits, ranges measured on images of `val`.

    q = clamp(round(x / scale) + zero),    x' = scale * (q - zero)

Weights have a scale of their own for each output channel and are symmetric (zero = 0); activations have one scale and
a zero point each. How an activation's range is chosen is the recipe: a running mean of each image's extremes
(`mean_minmax`), the extremes over all images (`minmax`), a percentile, or the entropy criterion, which both cut rare
extremes (Wu et al., "Integer Quantization for Deep Learning Inference", arXiv 2004.09602). Convolutions, matrix
products and activations are quantised; the layer that makes the logit is not: it costs nothing and its error would go
straight into the answer.

Recipes are tried in order until one keeps the AUROC on `val` (see `parity`); the one taken is named in `parity.json`.
Ranges are measured without labels, but on the images of `val` on which the loss is then measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import onnx
from onnxruntime.quantization import (  # type: ignore[import-untyped]  # ships no types
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]  # ships no types

from forgery_det.core.artefacts import atomic_path
from forgery_det.export.errors import ExportError
from forgery_det.export.graph import INPUT_NAME, first_line
from forgery_det.export.images import FloatArray
from forgery_det.export.job import Answer, ExportJob, Precision, WrittenFormat
from forgery_det.export.onnx_file import open_onnx, quiet_exporter

FILE_NAME = "model.int8.onnx"
LAYERS = ("Conv", "MatMul", "Gemm")
QUANTISED = (*LAYERS, "Clip", "Relu")
"""Activations too: a convolution whose output is quantised before its clip at 6 wastes its 256 steps on values that are
cut off at once (mean error of the default detector's logit 1.07 instead of 0.16, at twice the time)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How ranges are chosen.

    Args:
        method: Of the activations' ranges.
        percentile: For the method `percentile`: share of values, in percent, that the range holds.
        n_first_fp32: Layers nearest to the image that stay in fp32: they see most pixels and fill least of the time.
    """

    method: Literal["mean_minmax", "minmax", "percentile", "entropy"]
    percentile: float = 99.999
    n_first_fp32: int = 0

    @property
    def words(self) -> str:
        """The recipe in a few words, for `parity.json`."""
        limit = f" {self.percentile:g}" if self.method == "percentile" else ""
        first = f"the first {self.n_first_fp32} layers and " if self.n_first_fp32 else ""
        return f"QDQ, weights per channel, activations {self.method}{limit}, {first}the last layer in fp32"


RECIPES = (
    Recipe("mean_minmax"),
    Recipe("mean_minmax", n_first_fp32=8),
    Recipe("percentile", n_first_fp32=8),
    Recipe("entropy", n_first_fp32=8),
)


class OnnxInt8:
    """`model.int8.onnx`, static int8.

    Args:
        recipe: How ranges are chosen.
    """

    name: ClassVar[str] = "onnx_int8"
    needs_onnx: ClassVar[bool] = True
    precision: ClassVar[Precision] = "int8"

    def __init__(self, recipe: Recipe = RECIPES[0]) -> None:
        self.recipe = recipe

    @classmethod
    def candidates(cls) -> tuple[OnnxInt8, ...]:
        """Return one for each recipe, in the order in which they are tried."""
        return tuple(cls(recipe) for recipe in RECIPES)

    def write(self, job: ExportJob, bundle: Path) -> WrittenFormat:
        """Quantise the ONNX file.

        Raises:
            ExportError: onnxruntime's quantiser cannot.
        """
        if job.onnx is None:
            raise AssertionError("the job has no ONNX file")
        path = bundle / FILE_NAME
        try:
            with quiet_exporter(), atomic_path(path) as temporary:
                quantise(job.onnx, temporary, job.calibration(), self.recipe)
        except Exception as error:  # the quantiser raises errors of many unrelated classes
            raise ExportError(f"Expected a graph that can be quantised, got {first_line(error)}") from error
        return WrittenFormat(path, "onnxruntime", self.precision, facts={"recipe": self.recipe.words})

    def open(self, written: WrittenFormat) -> Answer:
        """Return onnxruntime's answer on the CPU."""
        return open_onnx(written.file)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Images one after another; `set_range` and the length let onnxruntime hold one image's tensors at a time."""

    def __init__(self, inputs: Iterable[FloatArray], n: int) -> None:
        self._inputs: Iterator[FloatArray] = iter(inputs)
        self._n, self._left = n, 0

    def __len__(self) -> int:
        return self._n

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = end_index - start_index

    def get_next(self) -> dict[str, FloatArray] | None:
        found = next(self._inputs, None) if self._left else None
        self._left -= 1
        return None if found is None else {INPUT_NAME: found}


def quantise(source: Path, target: Path, inputs: Sequence[FloatArray], recipe: Recipe) -> None:
    """Write the int8 form of an fp32 ONNX file.

    Args:
        source: fp32 ONNX.
        target: Written.
        inputs: Calibration images, as the graph takes them.
        recipe: How ranges are chosen.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Fuses what the runtime would fuse anyway, so that ranges belong to tensors that exist.
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, target, _Reader(inputs, len(inputs)), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=in_fp32(onnx.load(prepared), recipe), calibrate_method=_METHODS[recipe.method],
            extra_options=_options(recipe),
        )  # fmt: skip


def in_fp32(model: Any, recipe: Recipe) -> list[str]:
    """Return the names of the layers that a recipe leaves in fp32."""
    layers = [node.name for node in model.graph.node if node.op_type in LAYERS]
    return [*layers[: recipe.n_first_fp32], *last_layer(model)]


def last_layer(model: Any) -> list[str]:
    """Return the names of the layers nearest to the logit: going back from it, the first of `LAYERS` on each way."""
    maker = {output: node for node in model.graph.node for output in node.output}
    waiting, seen, found = ["logit"], set(), []
    while waiting:
        node = maker.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in LAYERS:
            found.append(node.name)
        else:
            waiting.extend(node.input)
    return found


_METHODS = {
    "mean_minmax": CalibrationMethod.MinMax,
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


def _options(recipe: Recipe) -> dict[str, Any]:
    # One image at a time, whatever the method: histograms of 128 images' tensors at once need gigabytes.
    one_by_one: dict[str, Any] = {"CalibStridedMinMax": 1}
    if recipe.method == "mean_minmax":
        one_by_one["CalibMovingAverage"] = True
    if recipe.method == "percentile":
        one_by_one["CalibPercentile"] = recipe.percentile
    return one_by_one
