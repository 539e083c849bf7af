"""What can go wrong in an export, for callers that act on it."""

from __future__ import annotations

from forgery_det.core.errors import ForgeryDetError


class ExportError(ForgeryDetError):
    """The export cannot be made as asked; the text says why and what to do instead."""


class ExportRefusedError(ExportError):
    """The detector says that it cannot be exported to a format (`Detector.export_refusals`)."""


class ParityError(ExportError):
    """An exported graph does not answer what the detector answers; nothing was written."""
