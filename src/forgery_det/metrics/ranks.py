"""Many detectors on many datasets: Friedman's test, and which mean ranks differ (Nemenyi's critical difference).

Rank the detectors on each dataset (1 = best, ties share the mean). With `N` datasets, `k` detectors, mean ranks `R_j`:

    Friedman   chi2 = 12 N / (k (k + 1)) (sum_j R_j^2 - k (k + 1)^2 / 4), corrected for ties  (Friedman 1937)
    Nemenyi    |R_i - R_j| >= CD = q_alpha sqrt(k (k + 1) / (6 N))                           (Nemenyi 1963; Demsar 2006)

`q_alpha` is the studentised range for `k` groups and infinite degrees of freedom, over sqrt 2. Only ranks are used: a
detector that wins everywhere by a hair is first. Datasets count as independent, so two crops of one dataset are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.inputs import FloatArray, check_open_fraction


@dataclass(frozen=True, slots=True)
class CriticalDifference:
    """What a critical-difference diagram shows.

    Attributes:
        names: Detectors, best mean rank first.
        mean_rank: Mean rank of each, in the same order; 1 is best.
        critical_difference: Mean ranks that differ by at least this much are different detectors.
        groups: Largest sets of neighbours that do not differ, best first; a detector alone in its group differs from
            all.
        p_value: Friedman's test that all detectors are alike; read the groups only if it is below alpha.
        n_datasets: Rows of the table.
    """

    names: tuple[str, ...]
    mean_rank: tuple[float, ...]
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]
    p_value: float
    n_datasets: int


def nemenyi_critical_difference(n_detectors: int, n_datasets: int, alpha: float = 0.05) -> float:
    """Return the difference of mean ranks that is significant at `alpha`.

    Raises:
        ConfigError: fewer than 2 detectors, no dataset, `alpha` outside (0, 1).

    Example:
        >>> round(nemenyi_critical_difference(4, 14), 2)  # the example of Demsar 2006
        1.25
    """
    check_open_fraction(alpha, "alpha")
    if n_detectors < 2 or n_datasets < 1:
        raise ConfigError(f"Expected at least 2 detectors and 1 dataset, got {n_detectors} and {n_datasets}.")
    q = float(stats.studentized_range.ppf(1.0 - alpha, n_detectors, np.inf)) / 2.0**0.5
    return float(q * np.sqrt(n_detectors * (n_detectors + 1) / (6.0 * n_datasets)))


def mean_ranks(table: ArrayLike, *, higher_is_better: bool = True) -> FloatArray:
    """Return the mean rank of each detector [D] over the datasets; 1 is best, ties share the mean rank.

    Args:
        table: One metric, datasets by detectors, [N, D].
        higher_is_better: Direction of the metric.

    Raises:
        MetricError: not two-dimensional, or a missing value.

    Example:
        >>> mean_ranks([[0.9, 0.8, 0.8], [0.7, 0.9, 0.6]]).tolist()
        [1.5, 1.75, 2.75]
    """
    table_ND = _check_table(table)
    return np.asarray(stats.rankdata(-table_ND if higher_is_better else table_ND, axis=1).mean(axis=0))


def critical_difference(
    table: ArrayLike, names: Sequence[str], *, alpha: float = 0.05, higher_is_better: bool = True
) -> CriticalDifference:
    """Rank detectors over datasets and find the groups that do not differ.

    Args:
        table: One metric, datasets by detectors, [N, D]; every detector on every dataset.
        names: Of the detectors, [D].
        alpha: Level of Nemenyi's test, in (0, 1).
        higher_is_better: Direction of the metric.

    Raises:
        ConfigError: `alpha` outside (0, 1).
        MetricError: not two-dimensional, a missing value, names that do not fit.
        NotEstimableError: fewer than 3 detectors (use a paired test) or fewer than 2 datasets.

    Example:
        >>> result = critical_difference([[0.9, 0.8, 0.5]] * 10, ["a", "b", "c"])
        >>> result.groups, round(result.critical_difference, 3)
        ((('a', 'b'), ('b', 'c')), 1.048)
    """
    table_ND = _check_table(table)
    n_datasets, n_detectors = table_ND.shape
    if len(names) != n_detectors or len(set(names)) != n_detectors:
        raise MetricError(f"Expected {n_detectors} different `names`, one a column, got {list(names)}.")
    if n_detectors < 3 or n_datasets < 2:
        raise NotEstimableError(
            f"not estimable ({n_detectors} detectors on {n_datasets} datasets: at least 3 on 2; "
            "compare two with a paired test)"
        )
    gap = nemenyi_critical_difference(n_detectors, n_datasets, alpha)
    rank_D = mean_ranks(table_ND, higher_is_better=higher_is_better)
    order = np.argsort(rank_D, kind="stable")
    sorted_rank, sorted_names = rank_D[order], tuple(names[index] for index in order)
    return CriticalDifference(
        sorted_names,
        tuple(sorted_rank.tolist()),
        gap,
        _groups(sorted_rank, sorted_names, gap),
        _friedman(table_ND),
        n_datasets,
    )


def _friedman(table_ND: FloatArray) -> float:
    # All detectors tied on every dataset: scipy divides by zero, but there is nothing to tell apart.
    if (table_ND == table_ND[:, :1]).all():
        return 1.0
    return float(stats.friedmanchisquare(*table_ND.T).pvalue)


def _groups(rank_D: FloatArray, names: tuple[str, ...], gap: float) -> tuple[tuple[str, ...], ...]:
    """Return the maximal runs of sorted detectors whose ends differ by less than `gap`."""
    groups, last_end = [], 0
    for start in range(len(names)):
        end = int(np.searchsorted(rank_D, rank_D[start] + gap, side="left"))
        if end > last_end:
            groups.append(names[start:end])
            last_end = end
    return tuple(groups)


def _check_table(table: ArrayLike) -> FloatArray:
    table_ND = np.asarray(table, dtype=np.float64)
    if table_ND.ndim != 2:
        raise MetricError(f"Expected `table` with 2 dimensions (datasets, detectors), got shape {table_ND.shape}.")
    missing = np.argwhere(np.isnan(table_ND))
    if len(missing):
        row, column = missing[0]
        raise MetricError(
            f"Expected a value for every detector on every dataset, got {len(missing)} missing, "
            f"the first in row {row}, column {column}."
        )
    return table_ND
