"""Checkpoint x dataset -> predictions once; metrics, slices and reports from that table; prediction on loose files."""

from __future__ import annotations

from forgery_det.evaluation.evaluate import evaluate
from forgery_det.evaluation.predict import PredictionRow, expand_paths, format_rows, predict

__all__ = ["PredictionRow", "evaluate", "expand_paths", "format_rows", "predict"]
