"""The protocols by name."""

from __future__ import annotations

from forgery_det.core.registry import Registry

PROTOCOLS = Registry(
    "protocol",
    {},
)
"""Protocol name -> where its function lives."""
