"""Errors of bundles and their runtimes."""

from __future__ import annotations

from forgery_det.core.errors import ForgeryDetError


class BundleError(ForgeryDetError):
    """A bundle is missing, unfinished, damaged, not signed as required, or cannot run here; the text says where."""
