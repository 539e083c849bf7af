"""How a rate at a clean threshold changes when the same images are changed: difference, interval, p-value.

    change = rate of the copies - rate of the same images as stored          rate: TPR or FPR, one threshold for both

The interval is the paired bootstrap over `source_id`s, the p-value McNemar's with clusters, and Holm's correction is
over all conditions of one rate at one operating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forgery_det.core.types import GENERATED, REAL, MetricRecord
from forgery_det.evaluation.protocols.base import ProtocolContext
from forgery_det.evaluation.protocols.cells import p_record
from forgery_det.evaluation.protocols.copies import shortage
from forgery_det.evaluation.slice_metrics import Values
from forgery_det.metrics.comparison import Comparison, holm, mcnemar
from forgery_det.metrics.paired_bootstrap import paired_bootstrap

Rate = Literal["tpr", "fpr"]
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class RateChange:
    """A change of a rate, as rows of `results.parquet`.

    Args:
        value: The difference; its note says how many images moved.
        p_value: Of no difference.
        p_holm: The same after Holm's correction.
        moved: How many images moved in words; empty where there is no value.
    """

    value: MetricRecord
    p_value: MetricRecord
    p_holm: MetricRecord
    moved: str

    def records(self) -> tuple[MetricRecord, ...]:
        """Return the rows of `results.parquet`."""
        return self.value, self.p_value, self.p_holm

    def is_real(self, sign: int) -> bool:
        """Tell whether the rate rose (`sign` 1) or fell (-1) by more than chance, after Holm's correction."""
        p_value, value = self.p_holm.value, self.value.value
        return p_value is not None and p_value < _ALPHA and value is not None and sign * value > 0


def rate_change(
    rate: Rate, key: str, values: Values, clean_N: NDArray[np.float64], point: str, context: ProtocolContext
) -> RateChange:
    """Set the rate of some logits against that of the clean logits of the same images; Holm is left to `adjusted`.

    Args:
        rate: `tpr` looks at generated images, `fpr` at real ones.
        key: Slice of the records.
        values: Labels, changed logits and clusters.
        clean_N: Logits of the same images as they are stored.
        point: Operating point whose clean threshold is used.
        context: Thresholds and statistics.
    """
    wanted = values.label_N == (GENERATED if rate == "tpr" else REAL)
    found, moved = _compare(rate, values.rows(wanted), clean_N[wanted], point, context)
    note = "; ".join(filter(None, [found.note, moved]))
    name = f"{rate}_difference"
    value = MetricRecord(
        f"{name}@{point}", key, found.difference, found.ci_low, found.ci_high, found.n, None, note
    )  # fmt: skip
    p_value = p_record(f"{name}_p@{point}", key, found.p_value, found.n, found.note)
    return RateChange(value, p_value, replace(p_value, metric=f"{name}_p_holm@{point}"), moved)


def adjusted(changes: Sequence[RateChange]) -> list[RateChange]:
    """Fill in the p-values after Holm's correction over all changes that have one."""
    known = [change.p_value.value for change in changes if change.p_value.value is not None]
    after = iter(holm(known))
    filled = []
    for change in changes:
        if change.p_value.value is not None:
            note = f"McNemar with clusters, Holm over {len(known)} conditions"
            change = replace(change, p_holm=replace(change.p_holm, value=float(next(after)), note=note))
        filled.append(change)
    return filled


def _compare(
    rate: Rate, values: Values, clean_N: NDArray[np.float64], point: str, context: ProtocolContext
) -> tuple[Comparison, str]:
    if why := shortage(values, context.statistics, ("generated" if rate == "tpr" else "real",)):
        return Comparison.missing(len(clean_N), why), ""
    if point not in context.thresholds.value:
        reason = context.thresholds.reason.get(point, "no such operating point")
        return Comparison.missing(len(clean_N), f"not estimable (no threshold: {reason})"), ""
    threshold = context.thresholds.value[point]
    found = paired_bootstrap(
        rate, values.label_N, values.logit_N, clean_N, values.cluster_N, threshold_a=threshold, threshold_b=threshold,
        n_replicates=context.statistics.n_replicates, seed=context.statistics.seed,
    )  # fmt: skip
    split = mcnemar(clean_N < threshold, values.logit_N < threshold, cluster=values.cluster_N)
    moved = f"{split.only_first} newly called generated, {split.only_second} no longer"
    return replace(found, p_value=split.p_value), moved
