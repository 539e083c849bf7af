"""OpenVINO: runs the bundle's OpenVINO graph, and ONNX files as well, on Intel and Arm processors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from forgery_det.core.own_thread import in_own_thread
from forgery_det.serving.errors import BundleError
from forgery_det.serving.runtime import OUTPUTS, EngineOptions, FloatArray, check_providers


class OpenVinoEngine:
    """One compiled model; every thread that calls `run` has its own request.

    Args:
        path: An OpenVINO `.xml`, or an ONNX file.
        input_name: Of the graph's input.
        options: Threads; providers are OpenVINO devices (`CPU`, `GPU`).

    Raises:
        ConfigError: A device is not available.
        BundleError: OpenVINO is not installed or refuses the file.
    """

    def __init__(self, path: Path, input_name: str, options: EngineOptions) -> None:
        try:
            import openvino  # type: ignore[import-untyped]  # ships no types
        except ImportError as error:
            raise BundleError(
                f"Expected the package `openvino` to run {path.name}, got {error}. Install it (pip install openvino), "
                "or run another format of the bundle."
            ) from error
        self._compiled, device = in_own_thread(lambda: _compile(openvino, path, options))
        names = {name for port in self._compiled.outputs for name in port.get_names()}
        if not set(OUTPUTS) <= names or input_name not in self._compiled.input(0).get_names():
            raise BundleError(f"Expected a graph from `{input_name}` to {', '.join(OUTPUTS)}, got {names} ({path}).")
        self._local = threading.local()
        self.description = f"openvino {openvino.__version__.split('-')[0]} ({device})"

    def run(self, image: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return `logit_B` and `score_B`."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.infer([image], share_inputs=True)
        # Copies, because the request's memory is written again by the next call.
        logit_B, score_B = (np.array(request.get_tensor(name).data, np.float32) for name in OUTPUTS)
        return logit_B, score_B


def _compile(openvino: Any, path: Path, options: EngineOptions) -> tuple[Any, str]:
    """Return the compiled model and the device it is for."""
    core = openvino.Core()
    device = options.providers[0] if options.providers else "CPU"
    check_providers([device], core.available_devices, "openvino")
    try:
        return core.compile_model(core.read_model(str(path)), device, _settings(device, options)), device
    except Exception as error:  # OpenVINO raises RuntimeError and types of its own
        text = str(error).strip().splitlines()
        raise BundleError(f"Expected a model that OpenVINO runs, got {text[-1:]} ({path}).") from error


def _settings(device: str, options: EngineOptions) -> dict[str, Any]:
    if device != "CPU":
        return {}
    # float32 is asked for by name: on processors with bfloat16 OpenVINO would otherwise round to it.
    return {
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
