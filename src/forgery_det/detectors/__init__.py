"""Detectors: `image_BCHW -> logit_B`, each with its `Preprocess`, its paper and the loader of its official checkpoint.

Listing the names imports no torch; `create_detector` does.

Example:
    >>> "frozen_probe" in list_detectors()
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forgery_det.detectors.registry import DETECTORS, list_detectors

if TYPE_CHECKING:
    from forgery_det.detectors.base import Detector, DetectorCard
    from forgery_det.detectors.checkpoint import load_checkpoint
    from forgery_det.detectors.factory import create_detector

_LAZY = {
    "Detector": "forgery_det.detectors.base",
    "DetectorCard": "forgery_det.detectors.base",
    "create_detector": "forgery_det.detectors.factory",
    "load_checkpoint": "forgery_det.detectors.checkpoint",
}

__all__ = ["DETECTORS", "Detector", "DetectorCard", "create_detector", "list_detectors", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import a name that needs torch on first use (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'forgery_det.detectors' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
