"""The difference of any metric between two detectors on the same images, with a cluster-bootstrap interval.

Clusters are drawn once and both detectors are computed on the same draw, so what they share cancels. The p-value
inverts the percentile interval: `p = 2 min(share of replicates <= 0, share >= 0)`, each with one replicate added, so
it is never 0 (Davison and Hinkley 1997, section 4.4). Strata, ties and speed are those of `bootstrap`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.metrics.bootstrap import (
    check_metric_inputs,
    cluster_note,
    evaluate_metric,
    n_counted,
    replicate_cells,
    replicate_function,
    resolve_metric,
)
from forgery_det.metrics.bootstrap_interval import BootstrapOptions, Method, replicate_interval
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import FloatArray, check_same_length
from forgery_det.metrics.registry import Metric
from forgery_det.metrics.resampling import CountProjection, cluster_codes, cluster_design


def paired_bootstrap(
    metric: str | Metric | Callable[..., float],
    label: ArrayLike,
    logit_a: ArrayLike,
    logit_b: ArrayLike,
    cluster: ArrayLike,
    *,
    threshold_a: float | None = None,
    threshold_b: float | None = None,
    n_replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    method: Method = "percentile",
) -> Comparison:
    """Compare a metric of two detectors on the same images; `difference` is a - b.

    Args:
        metric: As in `cluster_bootstrap`.
        label: 0 or 1, [N].
        logit_a: Of the first detector, [N] (scores, for the metrics of scores).
        logit_b: Of the second detector on the same images, [N].
        cluster: Group of each image, [N].
        threshold_a: From `val`, for metrics that need one; each detector has its own.
        threshold_b: The same for the second detector.
        n_replicates: At least 2; the smallest p-value is 2 / (n_replicates + 1).
        confidence: Of the two-sided interval, in (0, 1).
        seed: The same seed and data give the same result.
        method: `percentile` or `bca`, of the interval; the p-value is the percentile one.

    Raises:
        ConfigError: an option is out of range, or a threshold is missing or not wanted.
        MetricError: wrong label, NaN, unequal lengths, missing clusters.
        UnknownNameError: no such metric.

    Example:
        >>> label = [0] * 6 + [1] * 6
        >>> a, b = [0, 1, 2, 3, 4, 8, 5, 6, 7, 9, 10, 11], [0, 9, 2, 3, 4, 8, 5, 1, 7, 9, 6, 11]
        >>> result = paired_bootstrap("auroc", label, a, b, cluster=range(12))
        >>> round(result.difference, 3), result.ci_low < result.difference < result.ci_high
        (0.236, True)
    """
    options = BootstrapOptions(n_replicates, confidence, seed, method)
    code_N, n_clusters = cluster_codes(cluster)
    sides = []
    for logit, threshold in ((logit_a, threshold_a), (logit_b, threshold_b)):
        known = resolve_metric(metric, threshold)
        label_N, value_N = check_metric_inputs(known, label, logit)
        check_same_length(label=label_N, cluster=code_N)
        sides.append((known, value_N, threshold, replicate_cells(known, value_N, threshold, None)))
    n = n_counted(known, label_N)
    try:
        values = [evaluate_metric(known, label_N, value_N, threshold) for known, value_N, threshold, _ in sides]
    except NotEstimableError as error:
        return Comparison.missing(n, str(error))
    design = cluster_design(label_N, code_N, n_clusters, *(cell_N for *_, (_, cell_N) in sides))
    first, second = (
        replicate_function(known, CountProjection(design, code_N, label_N, *cells), threshold)
        for known, _, threshold, cells in sides
    )

    def difference_of(count_RS: FloatArray) -> FloatArray:
        return np.asarray(first(count_RS) - second(count_RS))

    difference = values[0] - values[1]
    found = replicate_interval(design, difference_of, difference, options, widest=2 * len(label_N))
    few = cluster_note(design, known.needs)
    if found.collapsed:
        note = "interval not estimable: every replicate gave the same difference"
        return Comparison(difference, None, None, None, n, "; ".join(filter(None, [found.note, note, few])))
    note = "; ".join(filter(None, [found.note, few]))
    return Comparison(difference, found.low, found.high, found.p_value, n, note)
