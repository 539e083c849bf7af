"""forgery-det: train, compare and ship detectors of AI-generated images.

The public names below are loaded when they are first used, so `import forgery_det` imports neither torch nor wandb.

Example:
    >>> import forgery_det
    >>> "frozen_probe" in forgery_det.list_detectors()
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from forgery_det._version import __version__

if TYPE_CHECKING:
    from forgery_det.audits import audit
    from forgery_det.core.manifest import Manifest
    from forgery_det.detectors import create_detector, list_detectors
    from forgery_det.evaluation import evaluate
    from forgery_det.export import export
    from forgery_det.recipes import collect
    from forgery_det.serving.predictor import Predictor

_PUBLIC = {
    "Manifest": "forgery_det.core.manifest",
    "Predictor": "forgery_det.serving.predictor",
    "audit": "forgery_det.audits",
    "collect": "forgery_det.recipes",
    "create_detector": "forgery_det.detectors",
    "evaluate": "forgery_det.evaluation",
    "export": "forgery_det.export",
    "list_detectors": "forgery_det.detectors",
}

__all__ = [
    "Manifest",
    "Predictor",
    "__version__",
    "audit",
    "collect",
    "create_detector",
    "evaluate",
    "export",
    "list_detectors",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'forgery_det' has no attribute {name!r}. Public names: {', '.join(__all__)}.")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
