"""Metrics and statistics as pure functions on numpy arrays: numbers in, numbers with their intervals out.

- `ranking`, `thresholded`, `probability`: the metrics; `registry`: the same by name, for tables and bootstraps.
- `intervals`, `bootstrap`, `delong`: how sure a number is; `comparison`: whether two detectors differ.
- `calibration`, `operating_points`, `conformal`: fitted on `val`, applied to `test`.

Nothing here reads a file, knows a detector or imports torch.
"""

from forgery_det.metrics.registry import METRICS, Metric, get_metric

__all__ = ["METRICS", "Metric", "get_metric"]
