"""Confidence intervals by resampling clusters, for any metric, at any size.

Draw the clusters (`source_id`, `prompt_id`) with replacement within strata, compute the metric on each replicate, and
read the interval off the replicates (Efron and Tibshirani 1993; Davison and Hinkley 1997, section 3.8 for clusters).
The interval itself, percentile or BCa, is in `bootstrap_interval`. The rules:

- A cluster that holds both classes is drawn whole. Strata are "only real", "only generated" and "both", each drawn
  with its own number of clusters, so no replicate loses a class.
- A threshold is taken as given: its own uncertainty from `val` is not in the interval.
- If every replicate agrees, the resampled interval has no width, which is not certainty. For a rate, balanced accuracy,
  accuracy or AUROC of exactly 0 or 1 the interval is then Clopper-Pearson on the number of clusters `m`, because all of
  them come out right with probability at most `metric^m`. AUROC and balanced accuracy take `m` from the smaller class:
  that many disjoint pairs of a real and a generated cluster are all in order. Other metrics get no interval. The note
  says which happened.
- With fewer than 5 clusters in a class that the metric needs, the interval is given and noted as unreliable.
- Few clusters make the interval too short. Simulated coverage of nominal 95 % with clusters of 1 to 4 images
  (`tests/unit/metrics/test_coverage.py`), by the number of clusters in each class:

      clusters a class            5     10     20    200
      AUROC, percentile        88 %   88 %   92 %   96 %
      AUROC, BCa               92 %   91 %   94 %   95 %
      AUROC, delong by cluster 94 %   93 %   93 %   95 %
      average precision        83 %   83 %   90 %   95 %
      TPR, percentile          89 %   88 %   94 %   93 %
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.bootstrap_interval import (
    BootstrapOptions,
    Method,
    Replicate,
    ReplicateInterval,
    replicate_interval,
)
from forgery_det.metrics.counts import ClassCounts, distinct_cells, threshold_cells
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import (
    FloatArray,
    IntArray,
    check_label_logit,
    check_label_score,
    check_same_length,
)
from forgery_det.metrics.intervals import clopper_pearson
from forgery_det.metrics.registry import Metric, get_metric
from forgery_det.metrics.resampling import ClusterDesign, CountProjection, Index, cluster_codes, cluster_design

FEW_CLUSTERS = 5


def cluster_bootstrap(
    metric: str | Metric | Callable[..., float],
    label: ArrayLike,
    logit: ArrayLike,
    cluster: ArrayLike,
    *,
    threshold: float | None = None,
    n_replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    method: Method = "percentile",
    n_bins: int | None = None,
) -> Estimate:
    """Return a metric with its stratified cluster-bootstrap interval.

    Args:
        metric: A name in `METRICS`, a `Metric`, or a function `(label, logit) -> float` (`(label, logit, threshold)`
            if a threshold is given). A bare function is computed replicate by replicate, which is slow.
        label: 0 or 1, [N].
        logit: Higher = generated, [N]. Scores in [0, 1] for the metrics whose `values` are scores.
        cluster: Group of each image (strings or integers), [N]; give each image its own where there are no groups.
        threshold: Decision threshold from `val`, for metrics that need one.
        n_replicates: At least 2; 1000 for a 95 % interval.
        confidence: Of the two-sided interval, in (0, 1).
        seed: The same seed and data give the same interval, whatever the order of the rows.
        method: `percentile` or `bca`.
        n_bins: Ranking metrics only: compute the replicates on this many bins of equal mass. The value stays exact, and
            the replicates are centred on it.

    Raises:
        ConfigError: an option is out of range, or a threshold is missing or not wanted.
        MetricError: wrong label, NaN, unequal lengths, missing clusters.
        UnknownNameError: no such metric.

    Example:
        >>> label, logit = [0, 0, 0, 0, 1, 1, 1, 1], [0.1, 0.3, 0.2, 0.6, 0.5, 0.7, 0.8, 0.9]
        >>> estimate = cluster_bootstrap("auroc", label, logit, cluster=range(8))
        >>> estimate.value, estimate.n, estimate.note
        (0.9375, 8, 'interval unreliable (4 real and 4 generated clusters, fewer than 5)')
    """
    options = BootstrapOptions(n_replicates, confidence, seed, method)
    known = resolve_metric(metric, threshold)
    label_N, value_N = check_metric_inputs(known, label, logit)
    code_N, n_clusters = cluster_codes(cluster)
    check_same_length(label=label_N, cluster=code_N)
    n = n_counted(known, label_N)
    try:
        value = evaluate_metric(known, label_N, value_N, threshold)
    except NotEstimableError as error:
        return Estimate.missing(n, str(error))
    value_G, cell_N = replicate_cells(known, value_N, threshold, n_bins)
    design = cluster_design(label_N, code_N, n_clusters, cell_N)
    replicate = replicate_function(known, CountProjection(design, code_N, label_N, value_G, cell_N), threshold)
    if n_bins is not None:
        replicate = centred(replicate, value, design)
    found = replicate_interval(design, replicate, value, options, widest=max(len(value_G), len(value_N)))
    return _estimate(known, design, found, value, n, confidence)


def resolve_metric(metric: str | Metric | Callable[..., float], threshold: float | None) -> Metric:
    """Return the `Metric` for a name or a bare function, and check that a threshold is given exactly if it is needed.

    Raises:
        ConfigError: a threshold is missing or not wanted.
        UnknownNameError: no such metric.
    """
    if isinstance(metric, str):
        metric = get_metric(metric)
    if not isinstance(metric, Metric):
        name = getattr(metric, "__name__", "function")
        return Metric(name, metric, threshold is not None, True, "Given as a function", needs="any")
    if metric.needs_threshold and threshold is None:
        raise ConfigError(f"Expected `threshold` (from `val`) for metric '{metric.name}', got None.")
    if not metric.needs_threshold and threshold is not None:
        raise ConfigError(f"Expected no `threshold` for metric '{metric.name}', got {threshold}.")
    return metric


def check_metric_inputs(metric: Metric, label: ArrayLike, values: ArrayLike) -> tuple[IntArray, FloatArray]:
    """Check labels with logits or with scores, as the metric asks."""
    return check_label_score(label, values) if metric.values == "score" else check_label_logit(label, values)


def n_counted(metric: Metric, label_N: IntArray) -> int:
    """Return how many images the metric counts."""
    n_generated = int(label_N.sum())
    return {"generated": n_generated, "real": len(label_N) - n_generated}.get(metric.needs, len(label_N))


def evaluate_metric(metric: Metric, label_N: IntArray, value_N: FloatArray, threshold: float | None) -> float:
    """Compute the metric once.

    Raises:
        NotEstimableError: from the metric itself.
    """
    return metric.function(label_N, value_N, threshold) if metric.needs_threshold else metric.function(label_N, value_N)


def replicate_cells(
    metric: Metric, value_N: FloatArray, threshold: float | None, n_bins: int | None
) -> tuple[FloatArray, Index]:
    """Return the values [G] and the cell of each image [N] that the replicates need.

    Raises:
        ConfigError: `n_bins` below 2, or for a metric that is not a ranking metric.
    """
    if metric.of_counts is not None and metric.needs_threshold and threshold is not None:
        cells = threshold_cells(value_N, threshold)
    else:
        cells = distinct_cells(value_N)
    if n_bins is None:
        return cells
    if metric.needs_threshold or metric.values == "score" or metric.of_counts is None:
        raise ConfigError(f"Expected `n_bins` for a ranking metric only, got it for '{metric.name}'.")
    if n_bins < 2:
        raise ConfigError(f"Expected `n_bins` of at least 2, got {n_bins}.")
    value_G, cell_N = cells
    size_G = np.bincount(cell_N)
    bin_G = ((np.cumsum(size_G) - 0.5 * size_G) * n_bins / len(value_N)).astype(np.intp)
    _, first, merged_G = np.unique(bin_G, return_index=True, return_inverse=True)
    return value_G[first], merged_G[cell_N]


def replicate_function(metric: Metric, projection: CountProjection, threshold: float | None) -> Replicate:
    """Return the function from draws [R, S] to the metric of each replicate [R]."""
    of_counts = metric.of_counts
    if of_counts is not None:
        return lambda count_RS: of_counts(projection.counts(count_RS))

    def one_by_one(count_RS: FloatArray) -> FloatArray:
        counts = projection.counts(count_RS)
        return np.array([_evaluate_row(metric, counts, row, threshold) for row in range(len(count_RS))])

    return one_by_one


def centred(replicate: Replicate, value: float, design: ClusterDesign) -> Replicate:
    """Shift the replicates so that the full sample gives exactly `value`; binning loses the same in all of them."""
    offset = value - float(replicate(design.size.astype(np.float64)[None])[0])
    return lambda count_RS: replicate(count_RS) + offset


def cluster_note(design: ClusterDesign, needs: str) -> str:
    """Return the warning for few clusters, or an empty text."""
    by_class = {"real": design.n_real, "generated": design.n_generated}
    if needs == "any":
        wanted = {name: count for name, count in by_class.items() if count}
    else:
        wanted = by_class if needs == "both" else {needs: by_class[needs]}
    if all(count >= FEW_CLUSTERS for count in wanted.values()):
        return ""
    counted = " and ".join(f"{count} {name}" for name, count in wanted.items())
    return f"interval unreliable ({counted} clusters, fewer than {FEW_CLUSTERS})"


def _evaluate_row(metric: Metric, counts: ClassCounts, row: int, threshold: float | None) -> float:
    """Write one replicate out as labels and values and compute a bare function on it; NaN if not estimable."""
    negative_G, positive_G = counts.negative[row].astype(np.intp), counts.positive[row].astype(np.intp)
    value_N = np.concatenate([np.repeat(counts.value, negative_G), np.repeat(counts.value, positive_G)])
    label_N = np.repeat(np.array([0, 1]), [negative_G.sum(), positive_G.sum()])
    try:
        return evaluate_metric(metric, label_N, value_N, threshold)
    except NotEstimableError:
        return float("nan")


def _estimate(
    metric: Metric, design: ClusterDesign, found: ReplicateInterval, value: float, n: int, confidence: float
) -> Estimate:
    """Put value and interval together; where all replicates agree, use the bound at 0 and 1 or give no interval."""
    few = cluster_note(design, metric.needs)
    if not found.collapsed:
        return Estimate(value, found.low, found.high, n, "; ".join(filter(None, [found.note, few])))
    smaller = min(design.n_real, design.n_generated)
    sizes = {"generated": design.n_generated, "real": design.n_real, "smaller": smaller, "all": design.n_clusters}
    if metric.boundary is None or value not in (0.0, 1.0):
        note = "interval not estimable: every replicate gave the same value"
        return replace(Estimate.missing(n, "; ".join(filter(None, [found.note, note, few]))), value=value)
    m = sizes[metric.boundary]
    bound = clopper_pearson(m if value == 1.0 else 0, m, confidence)
    unit = {"smaller": "pairs of clusters", "all": "clusters"}.get(metric.boundary, f"{metric.boundary} clusters")
    return Estimate(value, bound.low, bound.high, n, f"every replicate gave {value:g}: Clopper-Pearson on {m} {unit}")
