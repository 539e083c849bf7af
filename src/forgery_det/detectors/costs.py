"""What scoring one image costs on this machine: time and memory, measured at published size with random weights.

Neither depends on the values of weights, so nothing is downloaded. Each detector is measured in a process of its own:
only a fresh process can tell its highest memory, and the next detector finds the memory free again.
"""

from __future__ import annotations

import inspect
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forgery_det.core.artefacts import write_json
from forgery_det.core.errors import ConfigError
from forgery_det.core.runs import hardware
from forgery_det.detectors.base import Detector
from forgery_det.detectors.registry import DETECTORS
from forgery_det.transforms.preprocess import ImageArray

FILE_NAME = "detector_costs.json"
IMAGE_PX = 512
"""Side of the image that is scored."""

_N_RUNS = 3
_SLOW_S = 5.0
"""A detector that takes longer is timed once."""
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and memory of one image of 512 x 512 px.

    Args:
        time_ms: Processor time of one thread from decoded image to logit, in milliseconds: what one idle core takes,
            whatever else runs. The median of three after one to warm up.
        peak_bytes: Highest resident memory of a process that builds the detector and scores the image, less what it
            had after importing torch: weights, and the largest set of intermediate results.
    """

    time_ms: float
    peak_bytes: int


def published_size(name: str, device: str, **settings: Any) -> Detector:
    """Return a detector in its default size with random weights.

    Args:
        name: Registry name.
        device: `cpu`, or `meta`: shapes without memory.
        **settings: Keywords beside the defaults.
    """
    detector_class = DETECTORS.get(name)
    if "backbone_weights" in inspect.signature(detector_class).parameters:
        settings["backbone_weights"] = None
    detector: Detector
    try:
        with torch.device(device):
            detector = detector_class(**settings)
    except RuntimeError:
        # A constructor that looks at values cannot run on the meta device; those detectors are small.
        detector = detector_class(**settings)
    return detector


def measure_cost(name: str) -> Cost:
    """Measure a detector in a process of its own; seconds to a minute, and up to some gigabytes."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(cost_of, name).result()


def cost_of(name: str, **settings: Any) -> Cost:
    """Measure a detector in this process, whose memory must never have been higher than now for `peak_bytes` to hold.

    Args:
        name: Registry name.
        **settings: Keywords beside the defaults.
    """
    DETECTORS.get(name)  # imported before memory is read
    idle_bytes = _peak_resident_bytes()
    detector = published_size(name, "cpu", **settings)
    image_HWC = np.random.default_rng(0).integers(0, 256, (IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        warm_s = _processor_time_s(detector, image_HWC)
        times_s = [_processor_time_s(detector, image_HWC) for _ in range(_N_RUNS if warm_s < _SLOW_S else 1)]
    finally:
        torch.set_num_threads(n_threads)
    return Cost(1000 * float(np.median(times_s)), _peak_resident_bytes() - idle_bytes)


def _processor_time_s(detector: Detector, image_HWC: ImageArray) -> float:
    started = time.process_time()
    detector.logit(image_HWC)
    return time.process_time() - started


def write_costs(path: Path, costs: Mapping[str, Cost]) -> None:
    """Write costs atomically, with the machine that they hold for."""
    write_json(path, {"machine": hardware(), "costs": {name: asdict(cost) for name, cost in costs.items()}})


def read_costs(path: Path) -> dict[str, Cost]:
    """Return the costs in a file; none when there is no file, or when another machine wrote it.

    Raises:
        ConfigError: The file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["machine"] != hardware():
            return {}
        return {name: Cost(**cost) for name, cost in content["costs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"Expected times of detectors in {path}, got {error!r}. Delete the file.") from error


def _peak_resident_bytes() -> int:
    if _STATUS.exists():
        # Linux's getrusage remembers the process that started this one, this file does not.
        match = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
        if match:
            return int(match[1]) * 1024
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
