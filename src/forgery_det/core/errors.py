"""Errors that teach: what was expected, what came, and where to mend it.

Every error that bad input can cause derives from `ForgeryDetError`, so the command line can tell a user's mistake (exit
code 2, one clear line) from a defect of ours (traceback). Texts follow one form: "Expected X, got Y (where)."
"""

from __future__ import annotations


class ForgeryDetError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(ForgeryDetError):
    """A setting is unknown, missing or out of range."""


class ManifestError(ForgeryDetError):
    """A manifest breaks its schema; the text names the column, the row and the rule."""


class UnknownNameError(ForgeryDetError):
    """A name is not in a registry; the text offers the nearest known names."""


class ImageError(ForgeryDetError):
    """An image cannot be used. `reason` is a short stable word for tables and the quarantine.

    Args:
        reason: Stable identifier such as `truncated`, `empty`, `not_an_image`, `too_many_pixels`.
        detail: A sentence for people: what was expected and what came.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SourceError(ForgeryDetError):
    """A recipe's source cannot be reached or does not hold what the recipe says."""


class WeightsError(ForgeryDetError):
    """A checkpoint does not fit the detector; the text lists the first missing and unexpected keys."""
