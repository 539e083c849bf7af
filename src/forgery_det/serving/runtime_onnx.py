"""onnxruntime: runs `model.onnx` and the static int8 `model.int8.onnx` on any processor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forgery_det.serving.errors import BundleError
from forgery_det.serving.runtime import OUTPUTS, EngineOptions, FloatArray, check_providers

CPU = "CPUExecutionProvider"


class OnnxEngine:
    """One session; `run` is safe from several threads.

    Args:
        path: The ONNX file.
        input_name: Of the graph's input.
        options: Threads and providers.

    Raises:
        ConfigError: A provider is not available.
        BundleError: onnxruntime is not installed or refuses the file.
    """

    def __init__(self, path: Path, input_name: str, options: EngineOptions) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]  # ships no types
        except ImportError as error:
            raise BundleError(
                f"Expected the package `onnxruntime` to run {path.name}, got {error}. Install it "
                "(pip install onnxruntime), or run another format of the bundle."
            ) from error
        providers = options.providers or (CPU,)
        check_providers(providers, onnxruntime.get_available_providers(), "onnxruntime")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Threads that wait by spinning take the processor from those that decode the next batch, and from neighbours.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 3  # warnings about nodes on the processor say nothing to a user
        try:
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=list(providers))
        except Exception as error:  # onnxruntime raises a type of its own for each cause
            raise BundleError(f"Expected a model that onnxruntime runs, got {_first_line(error)} ({path}).") from error
        _check_names(self._session, input_name, path)
        self._input = input_name
        self.description = f"onnxruntime {onnxruntime.__version__} ({', '.join(self._session.get_providers())})"

    def run(self, image: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return `logit_B` and `score_B`."""
        logit_B, score_B = self._session.run(list(OUTPUTS), {self._input: image})
        return np.asarray(logit_B, np.float32), np.asarray(score_B, np.float32)


def _check_names(session: object, input_name: str, path: Path) -> None:
    inputs = [entry.name for entry in session.get_inputs()]  # type: ignore[attr-defined]
    outputs = [entry.name for entry in session.get_outputs()]  # type: ignore[attr-defined]
    if inputs != [input_name] or not set(OUTPUTS) <= set(outputs):
        raise BundleError(
            f"Expected a graph from `{input_name}` to {', '.join(OUTPUTS)}, got {inputs} to {outputs} ({path})."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
