from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from forgery_det.metrics.delong import delong, paired_delong
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.weighted_auroc import weighted_auroc


def logits(seed: int = 0, n: int = 120, n_columns: int = 4) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    shared = rng.normal(size=n) + label
    return label, [shared + rng.normal(size=n) for _ in range(n_columns)], np.arange(n) // 4 * 2 + label


@pytest.mark.parametrize("clustered", [False, True])
def test_one_weight_is_delong_and_a_contrast_is_paired_delong(clustered: bool) -> None:
    label, (first, second, *_), cluster = logits()
    cluster = cluster if clustered else None
    single, plain = weighted_auroc(label, [first], [1.0], cluster=cluster), delong(label, first, cluster=cluster)
    assert (single.value, single.ci_low, single.ci_high) == pytest.approx((plain.value, plain.ci_low, plain.ci_high))
    contrast = weighted_auroc(label, [first, second], [1.0, -1.0], cluster=cluster)
    paired = paired_delong(label, first, second, cluster=cluster)
    assert (contrast.value, contrast.ci_low, contrast.ci_high) == pytest.approx(
        (paired.difference, paired.ci_low, paired.ci_high)
    )


def test_an_average_is_that_of_scikit_learn_and_its_interval_agrees_with_a_bootstrap() -> None:
    label, columns, _ = logits(n=300)
    weights = [0.1, 0.2, 0.3, 0.4]
    found = weighted_auroc(label, columns, weights)
    assert found.value == pytest.approx(np.dot(weights, [roc_auc_score(label, column) for column in columns]))
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(np.flatnonzero(label == side), (label == side).sum()) for side in (0, 1)])
        real, generated = rows[label[rows] == 0], rows[label[rows] == 1]
        drawn.append(np.dot(weights, [(column[generated, None] > column[real]).mean() for column in columns]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.ci_low == pytest.approx(low, abs=0.015)
    assert found.ci_high == pytest.approx(high, abs=0.015)
    assert found.n == 300


def test_what_cannot_be_estimated_is_said() -> None:
    label, columns, _ = logits()
    assert "only generated" in weighted_auroc(np.ones(4), [np.arange(4.0)], [1.0]).note
    perfect = weighted_auroc(label, [label * 2.0, label * 3.0], [0.5, 0.5])
    assert (perfect.value, perfect.ci_low, perfect.note) == (1.0, None, "interval not estimable: variance 0")
    for weights in ([1.0], []):
        with pytest.raises(
            MetricError, match=f"Expected one weight for each of the 2 sets of logits, got {len(weights)}"
        ):
            weighted_auroc(label, columns[:2], weights)
