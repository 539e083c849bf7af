"""Is the mean of paired differences 0? A test that flips signs, for pairs that come in clusters.

If a short and a long prompt for the same idea fool the detector equally, the difference of their logits is as likely
`d` as `-d`. So all signs of a cluster are flipped together, again and again, and

    p = (1 + flips with |sum d| at least the observed one) / (1 + flips)

(Fisher 1935; Winkler et al. 2014 for whole blocks). With few clusters all `2^K` flips are enumerated, the observed one
among them, and `p` is their exact share. Nothing is assumed of the distribution but symmetry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.inputs import check_same_length, check_values
from forgery_det.metrics.resampling import cluster_codes

ENUMERATED_CLUSTERS = 12
"""Up to this many clusters all flips are tried."""

_BLOCK = 1000


def sign_flip_test(difference: ArrayLike, cluster: ArrayLike, *, n_flips: int = 9999, seed: int = 0) -> float:
    """Return the two-sided p-value of a mean difference of 0.

    Args:
        difference: One a pair, [N].
        cluster: Group of each pair, [N].
        n_flips: Random flips where there are too many clusters to try all.
        seed: Of the flips.

    Raises:
        ConfigError: `n_flips` below 1.
        MetricError: NaN, infinite values, unequal lengths, missing clusters.
        NotEstimableError: No pairs.

    Example:
        >>> sign_flip_test([1.0, 2.0, 1.5, 0.5], cluster=range(4))  # 2 of 16 flips are as far from 0
        0.125
    """
    if n_flips < 1:
        raise ConfigError(f"Expected `n_flips` of at least 1, got {n_flips}.")
    difference_N = check_values(difference, "difference", finite=True)
    code_N, n_clusters = cluster_codes(cluster)
    check_same_length(difference=difference_N, cluster=code_N)
    if not n_clusters:
        raise NotEstimableError("not estimable (n = 0: no pairs)")
    sum_K = np.bincount(code_N, weights=difference_N, minlength=n_clusters)
    # Flips that are equal by algebra must not be told apart by rounding.
    observed = abs(float(sum_K.sum())) - 1e-9 * float(np.abs(sum_K).sum())
    if n_clusters <= ENUMERATED_CLUSTERS:
        bits = np.arange(2**n_clusters)[:, None] >> np.arange(n_clusters)
        return float((np.abs((1.0 - 2.0 * (bits & 1)) @ sum_K) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, n_flips, _BLOCK):
        sign = generator.integers(0, 2, (min(_BLOCK, n_flips - start), n_clusters)) * 2.0 - 1.0
        extreme += int((np.abs(sign @ sum_K) >= observed).sum())
    return (1 + extreme) / (1 + n_flips)
