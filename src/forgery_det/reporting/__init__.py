"""Numbers to pages: `report.html`, `report.md` and figures from values that others computed."""

from __future__ import annotations

from forgery_det.reporting.data import ReportData
from forgery_det.reporting.write import write_report

__all__ = ["ReportData", "write_report"]
