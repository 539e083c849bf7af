"""`create_detector`: one call for a new detector, our checkpoint, safetensors, or the authors' file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from forgery_det.core.errors import WeightsError
from forgery_det.detectors.base import Detector
from forgery_det.detectors.checkpoint import build_from, is_checkpoint, read_facts
from forgery_det.detectors.registry import DETECTORS, build_detector
from forgery_det.detectors.weights import read_file, unwrap


def create_detector(name: str, weights: str | Path | None = None, **settings: Any) -> Detector:
    """Build the detector called `name`, in evaluation mode, on the CPU.

    Args:
        name: Registry name, see `list_detectors`.
        weights: None for an untrained detector; or our checkpoint, a safetensors file, or the file that the method's
            authors released (dictionaries around the state dict and `module.` prefixes are taken off). It fits whole or
            not at all. A path, or an address `hf://owner/name[@revision]/path/of/file`.
        **settings: Keywords of the detector. With our checkpoint they replace those it was trained with.

    Raises:
        UnknownNameError: No detector is called so.
        ConfigError: The detector takes no such setting, or a value is out of range.
        WeightsError: The file is missing, damaged, unsafe to read, or does not fit.

    Example:
        >>> import numpy as np
        >>> detector = create_detector("frozen_probe", backbone="test_resnet", backbone_weights=None, image_size_px=64)
        >>> detector.preprocess(np.zeros((90, 120, 3), np.uint8)).shape
        (64, 64, 3)
    """
    if weights is None:
        return build_detector(name, settings).eval()
    where = str(weights)
    detector_class = DETECTORS.get(name)
    content = read_file(weights)
    if is_checkpoint(content):
        facts = read_facts(content, where)
        if facts.detector != name:
            raise WeightsError(f"Expected a checkpoint of {name}, got one of {facts.detector} ({where}).")
        return build_from(content, facts, settings, where)
    state = unwrap(content, where)
    settings = {**detector_class.settings_from(state), **settings}
    fetches = "backbone_weights" in inspect.signature(detector_class).parameters
    if fetches and detector_class.holds_whole_network(state):
        settings = {**settings, "backbone_weights": None}
    detector = build_detector(name, settings)
    try:
        detector.load_official(state)
    except WeightsError as error:
        raise WeightsError(f"{error} (in {where})") from error
    return detector.eval()
