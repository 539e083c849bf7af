"""The audits by name. To add one: a function from `AuditContext` to findings, and one line here."""

from __future__ import annotations

from forgery_det.core.registry import Registry

AUDITS = Registry(
    "audit",
    {
        "class_presence": "forgery_det.audits.integrity:class_presence",
        "duplicates_across_splits": "forgery_det.audits.leaks:duplicates_across_splits",
        "file_facts": "forgery_det.audits.file_facts:file_facts",
        "missing_files": "forgery_det.audits.integrity:missing_files",
        "origin_facts": "forgery_det.audits.file_facts:origin_facts",
        "source_across_splits": "forgery_det.audits.leaks:source_across_splits",
        "thumbnail_content": "forgery_det.audits.thumbnail:thumbnail_content",
    },
)
"""Audit name -> where its function lives."""
