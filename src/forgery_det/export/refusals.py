"""Detectors that cannot be exported say so, with what to do instead, before anything is traced."""

from __future__ import annotations

from collections.abc import Sequence

from forgery_det.detectors.base import Detector
from forgery_det.export.errors import ExportRefusedError


def check_refusals(detector: Detector, formats: Sequence[str]) -> None:
    """Refuse formats that the detector says it cannot have.

    Raises:
        ExportRefusedError: The first such format, with the detector's reason.
    """
    for name in formats:
        reason = detector.export_refusal(name)
        if reason is not None:
            raise ExportRefusedError(f"{detector.card.name} cannot be exported to {name}: {reason}")
