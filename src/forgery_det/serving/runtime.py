"""A loaded model as one call: float32 images in, logits and scores out, whatever library runs it.

The libraries are imported by the engine that needs them, so a machine needs only the one it uses.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from forgery_det.core.errors import ConfigError

FloatArray = npt.NDArray[np.float32]
OUTPUTS = ("logit", "score")
OPENVINO = "openvino"
"""Runtime, and the one provider that is no device: it hands an ONNX file to OpenVINO."""


class Engine(Protocol):
    """A loaded model; `run` may be called from several threads."""

    @property
    def description(self) -> str:
        """What runs it, for logs and pages: library, version, device."""
        ...

    def run(self, image: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return `logit_B` and `score_B` for `image`: `[B, 3, H, W]` or `[B, V, 3, H, W]`, in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is run.

    Args:
        threads: Processor threads of one call.
        providers: Devices in order of preference, in the words of the runtime; empty for the processor. `openvino`
            alone hands an ONNX file to OpenVINO.
    """

    threads: int
    providers: tuple[str, ...] = ()


def usable_cores() -> int:
    """Return how many processors this process may use (its affinity, not what the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_engine(runtime: str, path: Path, input_name: str, options: EngineOptions) -> Engine:
    """Load a model file with the library called `runtime`.

    Raises:
        ConfigError: The runtime is unknown, or does not know a provider.
        BundleError: The library is not installed, or does not accept the file.
    """
    if options.providers == (OPENVINO,):
        # OpenVINO reads ONNX files as well, and runs int8 ones faster than onnxruntime on many processors.
        runtime, options = OPENVINO, EngineOptions(options.threads)
    if runtime == "onnxruntime":
        from forgery_det.serving.runtime_onnx import OnnxEngine

        return OnnxEngine(path, input_name, options)
    if runtime == OPENVINO:
        from forgery_det.serving.runtime_openvino import OpenVinoEngine

        return OpenVinoEngine(path, input_name, options)
    raise ConfigError(f"Expected the runtime onnxruntime or openvino, got {runtime!r}.")


def check_providers(asked: Sequence[str], available: Sequence[str], library: str) -> None:
    """Refuse a device that the installed library does not have.

    Raises:
        ConfigError: Names what is available.

    Example:
        >>> check_providers(["CUDAExecutionProvider"], ["CPUExecutionProvider"], "onnxruntime")
        Traceback (most recent call last):
        ...
        forgery_det.core.errors.ConfigError: Expected providers of this onnxruntime (CPUExecutionProvider), got ...
    """
    missing = [name for name in asked if name not in available]
    if missing:
        raise ConfigError(
            f"Expected providers of this {library} ({', '.join(available)}), got {', '.join(missing)}. "
            f"Another build of {library} may have them."
        )
