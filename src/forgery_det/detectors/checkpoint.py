"""Our checkpoints: a Lightning file that is enough to build the detector again, to score, and to decide.

A checkpoint is a `.ckpt` that `torch.load(weights_only=True)` accepts. Its `state_dict` has the detector's tensors
under `detector.`; its entry `forgery_det` says how to build the detector and, once `fit` has calibrated it on `val`,
the temperature (score = sigmoid(logit / temperature)) and the operating points (a logit at or above one means
generated). Both are None until then: nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from forgery_det.core.artefacts import atomic_path
from forgery_det.core.errors import ConfigError, WeightsError
from forgery_det.detectors.base import Detector
from forgery_det.detectors.registry import build_detector
from forgery_det.detectors.weights import load_strict, read_file, without_prefix
from forgery_det.metrics.thresholded import OPERATING_POINT_RULES
from forgery_det.transforms.preprocess import Preprocess

CHECKPOINT_KEY = "forgery_det"
"""The entry of a Lightning checkpoint that is ours."""

FORMAT = 1
OPERATING_POINTS = tuple(OPERATING_POINT_RULES)
"""Decision thresholds on the logit, chosen on `val`."""

_PREFIX = "detector."


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What a checkpoint says about its detector.

    Args:
        detector: Registry name.
        arguments: Keywords that build it.
        preprocess: Geometry it was trained with.
        temperature: Divides the logit before the sigmoid; None until calibrated.
        operating_points: Name (`OPERATING_POINTS`) to threshold on the logit; None until calibrated.
        training: Summary of the training data and settings, for the model card.
    """

    detector: str
    arguments: Mapping[str, Any]
    preprocess: Preprocess
    temperature: float | None
    operating_points: Mapping[str, float] | None
    training: Mapping[str, Any]


class LoadedDetector(NamedTuple):
    """A detector in evaluation mode, and what its checkpoint says about it."""

    detector: Detector
    facts: CheckpointFacts


def describe(
    detector: Detector,
    *,
    temperature: float | None = None,
    operating_points: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the `forgery_det` entry of a checkpoint of `detector`.

    Args:
        detector: Built by `create_detector`.
        temperature: Above 0; None while not calibrated.
        operating_points: Thresholds on the logit; None while not calibrated.
        training: Plain values for the model card.

    Raises:
        ConfigError: The detector was not built by `create_detector`, or a value is out of range or not plain.
    """
    if detector.arguments is None:
        raise ConfigError(
            f"Expected a detector built by create_detector, got a {type(detector).__name__} built directly: "
            "its settings are not known, so a checkpoint of it could not be loaded."
        )
    _check_calibration(temperature, operating_points)
    return {
        "format": FORMAT,
        "detector": detector.card.name,
        "kwargs": _plain(dict(detector.arguments), f"settings of {detector.card.name}"),
        "preprocess": detector.preprocess.to_json(),
        "temperature": temperature,
        "operating_points": None if operating_points is None else dict(operating_points),
        "training": _plain(dict(training or {}), "training summary"),
    }


def save_checkpoint(
    path: Path,
    detector: Detector,
    *,
    temperature: float | None = None,
    operating_points: Mapping[str, float] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint of `detector` without a trainer's state; arguments as in `describe`."""
    entry = describe(detector, temperature=temperature, operating_points=operating_points, training=training)
    state = {_PREFIX + name: tensor for name, tensor in detector.state_dict().items()}
    with atomic_path(Path(path)) as temporary:
        torch.save({"state_dict": state, CHECKPOINT_KEY: entry}, temporary)


def load_checkpoint(path: str | Path) -> LoadedDetector:
    """Build the detector of one of our checkpoints, on the CPU and in evaluation mode.

    Args:
        path: A path or an `hf://` address.

    Raises:
        WeightsError: The file is missing, damaged, not ours, of a later format, or does not fit its detector.
    """
    content = read_file(path)
    facts = read_facts(content, path)
    detector = build_from(content, facts, {}, path)
    return LoadedDetector(detector, facts)


def build_from(content: Any, facts: CheckpointFacts, overrides: Mapping[str, Any], path: str | Path) -> Detector:
    """Build the detector that the content of a checkpoint describes, in evaluation mode.

    Args:
        content: What `read_file` returned.
        facts: What `read_facts` returned.
        overrides: Keywords that replace the checkpoint's; without any, the geometry is the one it was trained with.
        path: Named in errors.

    Raises:
        ConfigError: The detector knows no such keyword.
        WeightsError: The tensors do not fit.
    """
    # The file holds the whole network, so no published backbone is fetched first.
    fetch_nothing = {"backbone_weights": None} if "backbone_weights" in facts.arguments else {}
    detector = build_detector(facts.detector, {**facts.arguments, **overrides, **fetch_nothing})
    detector.arguments = {**facts.arguments, **overrides}
    if not overrides:
        detector.preprocess = facts.preprocess
    load_strict(detector, state_of(content), str(path))
    return detector.eval()


def is_checkpoint(content: Any) -> bool:
    """Tell whether what `read_file` returned is one of our checkpoints."""
    return isinstance(content, dict) and CHECKPOINT_KEY in content


def state_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the detector's state dict in the content of one of our checkpoints."""
    return without_prefix(content.get("state_dict", {}), _PREFIX)


def read_facts(content: Any, path: str | Path) -> CheckpointFacts:
    """Read the `forgery_det` entry of what `read_file` returned.

    Args:
        content: Content of a checkpoint.
        path: Named in errors.

    Raises:
        WeightsError: There is no such entry, or its format is not known.
    """
    if not is_checkpoint(content):
        raise WeightsError(
            f"Expected a checkpoint of forgery-det, got a weights file without its `{CHECKPOINT_KEY}` entry ({path}). "
            "Name the detector to load it: create_detector(NAME, weights=PATH)."
        )
    entry = content[CHECKPOINT_KEY]
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        found = entry.get("format") if isinstance(entry, dict) else type(entry).__name__
        raise WeightsError(
            f"Expected a checkpoint of format {FORMAT}, got {found!r} ({path}). A newer forgery-det may have made it."
        )
    try:
        return CheckpointFacts(
            detector=entry["detector"],
            arguments=dict(entry["kwargs"]),
            preprocess=Preprocess.from_json(entry["preprocess"]),
            temperature=entry["temperature"],
            operating_points=entry["operating_points"],
            training=entry["training"],
        )
    except KeyError as error:
        raise WeightsError(f"Expected `{error.args[0]}` in the `{CHECKPOINT_KEY}` entry, got none ({path}).") from error
    except (TypeError, ValueError, ConfigError) as error:
        raise WeightsError(f"Expected a readable `{CHECKPOINT_KEY}` entry, got {error} ({path}).") from error


def write_calibration(path: Path, temperature: float, operating_points: Mapping[str, float]) -> None:
    """Put a temperature and operating points into a checkpoint, atomically; all else in the file is kept.

    Args:
        path: One of our checkpoints.
        temperature: Above 0.
        operating_points: Thresholds on the logit for each of `OPERATING_POINTS`.

    Raises:
        ConfigError: A value is out of range or an operating point is missing or unknown.
        WeightsError: The file is not one of our checkpoints.
    """
    _check_calibration(temperature, operating_points)
    content = read_file(path)
    read_facts(content, path)
    points = {name: float(threshold) for name, threshold in operating_points.items()}
    entry = content[CHECKPOINT_KEY] | {"temperature": float(temperature), "operating_points": points}
    with atomic_path(Path(path)) as temporary:
        torch.save(content | {CHECKPOINT_KEY: entry}, temporary)


def _check_calibration(temperature: float | None, operating_points: Mapping[str, float] | None) -> None:
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"Expected `temperature` to be a finite number above 0, got {temperature}.")
    if operating_points is None:
        return
    if set(operating_points) != set(OPERATING_POINTS):
        raise ConfigError(f"Expected the operating points {OPERATING_POINTS}, got {tuple(sorted(operating_points))}.")
    for name, threshold in operating_points.items():
        if math.isnan(threshold):
            raise ConfigError(f"Expected a threshold for the operating point {name}, got {threshold}.")


def _plain(value: Any, where: str) -> Any:
    """Return `value` with paths as texts; refuse what a weights-only load would not read back."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{where}, {key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry, where) for entry in value)
    raise ConfigError(f"Expected numbers, texts, lists and dictionaries, got {type(value).__name__} ({where}).")
