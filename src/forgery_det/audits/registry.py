"""The audits by name. To add one: a function from `AuditContext` to findings, and one line here."""

from __future__ import annotations

from forgery_det.core.registry import Registry

AUDITS = Registry(
    "audit",
    {
        "class_presence": "forgery_det.audits.integrity:class_presence",
        "duplicates_across_splits": "forgery_det.audits.leaks:duplicates_across_splits",
        "file_facts": "forgery_det.audits.file_facts:file_facts",
        "histogram_distances": "forgery_det.audits.histogram_distances:histogram_distances",
        "label_noise": "forgery_det.audits.label_noise:label_noise",
        "missing_files": "forgery_det.audits.integrity:missing_files",
        "near_duplicates": "forgery_det.audits.near_duplicates:near_duplicates",
        "origin_facts": "forgery_det.audits.file_facts:origin_facts",
        "prompt_overlap": "forgery_det.audits.prompt_overlap:prompt_overlap",
        "reencode_shift": "forgery_det.audits.reencode_shift:reencode_shift",
        "source_across_splits": "forgery_det.audits.leaks:source_across_splits",
        "thumbnail_content": "forgery_det.audits.thumbnail:thumbnail_content",
    },
)
"""Audit name -> where its function lives."""
