"""Can this dataset be solved without looking at the content, and do its splits leak?

A benchmark that a classifier solves from width, codec or subject matter says nothing about a detector. These checks run
before training (`reencode_shift` after it, with a checkpoint); `forgery-det audit` exits with 1 when one fails. Each
one is explained in `docs/audits.md`.
"""

from forgery_det.audits.registry import AUDITS
from forgery_det.audits.report import AuditFinding, AuditReport
from forgery_det.audits.run import audit

__all__ = ["AUDITS", "AuditFinding", "AuditReport", "audit"]
