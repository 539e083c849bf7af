"""Do two judges agree beyond chance? Cohen's kappa, with an interval that draws clusters.

    kappa = (p_o - p_e) / (1 - p_e)        p_o: share of equal verdicts;  p_e = sum_k P(first = k) P(second = k)

(Cohen 1960, DOI 10.1177/001316446002000104.) 1 is full agreement, 0 what chance gives. When both judges nearly always
give the same verdict, kappa is low although they agree on almost everything (Feinstein and Cicchetti 1990), so the
share of equal verdicts stands beside it. Verdicts on images of one prompt are not independent: the interval is the
percentile bootstrap over clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.clustered_rate import clustered_rate
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import FloatArray, check_open_fraction
from forgery_det.metrics.resampling import cluster_codes

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two judges agree.

    Attributes:
        kappa: Cohen's kappa.
        equal: Share of equal verdicts, the mean over clusters.
        n: Things that both judged.
    """

    kappa: Estimate
    equal: Estimate
    n: int


def agreement(
    first: Sequence[str],
    second: Sequence[str],
    cluster: ArrayLike,
    *,
    n_replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Return Cohen's kappa and the share of equal verdicts, each with an interval.

    Args:
        first: Verdicts of one judge, [N].
        second: Verdicts of the other on the same things, [N].
        cluster: Group of each thing, for instance its `prompt_id`, [N].
        n_replicates: Bootstrap replicates.
        confidence: Of the intervals, in (0, 1).
        seed: Of the bootstrap.

    Raises:
        ConfigError: `confidence` outside (0, 1), or `n_replicates` below 2.
        MetricError: Unequal lengths, missing clusters.

    Example:
        >>> found = agreement(["safe", "unsafe", "safe", "safe"], ["safe", "unsafe", "unsafe", "safe"], range(4))
        >>> found.kappa.value, found.equal.value
        (0.5, 0.75)
    """
    check_open_fraction(confidence, "confidence")
    if n_replicates < 2:
        raise ConfigError(f"Expected `n_replicates` of at least 2, got {n_replicates}.")
    code_N, n_clusters = cluster_codes(cluster)
    if not len(first) == len(second) == len(code_N):
        raise MetricError(
            f"Expected arrays of equal length, got first {len(first)}, second {len(second)}, cluster {len(code_N)}."
        )
    if not n_clusters:
        missing = Estimate.missing(0, "not estimable (n = 0: nothing that both judged)")
        return Agreement(missing, missing, 0)
    equal = clustered_rate([float(a == b) for a, b in zip(first, second, strict=True)], code_N, confidence=confidence)
    table_CKK = _tables(first, second, code_N, n_clusters)
    value = float(_kappa(table_CKK.sum(axis=0)[None])[0])
    if np.isnan(value):
        only = f"not estimable (n = {len(first)}: both judges gave one and the same verdict throughout)"
        return Agreement(Estimate.missing(len(first), only), equal, len(first))
    replicate_R = _replicates(table_CKK, n_replicates, seed)
    usable_R = replicate_R[~np.isnan(replicate_R)]
    if len(usable_R) < n_replicates / 2 or n_clusters == 1:
        return Agreement(Estimate(value, None, None, len(first), "no interval: too few clusters"), equal, len(first))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(usable_R, [tail, 1.0 - tail])
    return Agreement(Estimate(value, float(low), float(high), len(first)), equal, len(first))


def _tables(first: Sequence[str], second: Sequence[str], code_N: np.ndarray, n_clusters: int) -> FloatArray:
    """Return the table of verdicts of each cluster, [C, K, K]."""
    names = sorted({*first, *second})
    place = {name: index for index, name in enumerate(names)}
    table_CKK = np.zeros((n_clusters, len(names), len(names)))
    for code, one, other in zip(code_N.tolist(), first, second, strict=True):
        table_CKK[code, place[one], place[other]] += 1.0
    return table_CKK


def _kappa(table_RKK: FloatArray) -> FloatArray:
    share_RKK = table_RKK / table_RKK.sum(axis=(1, 2), keepdims=True)
    observed_R = np.trace(share_RKK, axis1=1, axis2=2)
    expected_R = (share_RKK.sum(axis=2) * share_RKK.sum(axis=1)).sum(axis=1)
    room_R = 1.0 - expected_R
    kappa_R: FloatArray = np.full(len(room_R), np.nan)
    # Nothing is left to agree on beyond chance where one verdict is all there is.
    np.divide(observed_R - expected_R, room_R, out=kappa_R, where=room_R > 1e-12)
    return kappa_R


def _replicates(table_CKK: FloatArray, n_replicates: int, seed: int) -> FloatArray:
    generator = np.random.default_rng(seed)
    n_clusters = len(table_CKK)
    flat_CV = table_CKK.reshape(n_clusters, -1)
    shape = table_CKK.shape[1:]
    found = []
    for start in range(0, n_replicates, _BLOCK):
        size = min(_BLOCK, n_replicates - start)
        drawn_RC = generator.multinomial(n_clusters, np.full(n_clusters, 1.0 / n_clusters), size=size)
        found.append(_kappa((drawn_RC @ flat_CV).reshape(size, *shape)))
    return np.concatenate(found)
