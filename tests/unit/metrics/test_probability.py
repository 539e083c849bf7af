from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.functional.classification import binary_calibration_error

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.probability import brier, cllr, ece, nll


def scored(n: int = 600, seed: int = 0, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = np.round(rng.uniform(size=n), decimals)
    return (rng.uniform(size=n) < score**2).astype(int), score


def test_brier_and_nll_equal_scikit_learn() -> None:
    label, score = scored()
    assert brier(label, score) == pytest.approx(reference.brier_score_loss(label, score), abs=1e-14)
    assert nll(label, score) == pytest.approx(reference.log_loss(label, score), abs=1e-12)


def test_a_wrong_certainty_costs_much_but_not_infinity() -> None:
    assert nll([1], [0.0]) == pytest.approx(-np.log(np.finfo(float).eps))
    assert nll([1], [1.0]) == pytest.approx(0.0, abs=1e-15)


def test_cllr_equals_its_definition_written_out() -> None:
    label, score = scored()
    score = np.clip(score, 0.01, 0.99)
    prior = 0.3
    ratio = score / (1 - score) * (1 - prior) / prior
    expected = 0.5 * (np.log2(1 + 1 / ratio[label == 1]).mean() + np.log2(1 + ratio[label == 0]).mean())
    assert cllr(label, score, prior) == pytest.approx(expected, abs=1e-12)
    assert cllr(label, np.full(len(label), prior), prior) == pytest.approx(1.0)


def test_cllr_is_the_nll_in_bits_of_a_balanced_set() -> None:
    label, score = np.array([0, 1, 0, 1]), np.array([0.2, 0.7, 0.6, 0.9])
    assert cllr(label, score) == pytest.approx(nll(label, score) / np.log(2))


def test_ece_bins_equal_mass_written_out() -> None:
    rng = np.random.default_rng(1)
    score = rng.uniform(size=600)
    label = (rng.uniform(size=600) < score**2).astype(int)
    order = np.argsort(score)
    gaps = [abs(score[part].mean() - label[part].mean()) for part in np.split(order, 15)]
    assert ece(label, score, 15) == pytest.approx(np.mean(gaps), abs=1e-12)


def test_ece_equals_torchmetrics_where_the_bins_agree() -> None:
    # One score in the middle of each tenth, equally many images each: equal-mass and equal-width bins are the same.
    rng = np.random.default_rng(2)
    score = np.repeat(np.arange(10) / 10 + 0.05, 40)
    label = (rng.uniform(size=400) < score**2).astype(int)
    expected = float(binary_calibration_error(torch.tensor(score), torch.tensor(label), n_bins=10, norm="l1"))
    assert ece(label, score, 10) == pytest.approx(expected, abs=1e-6)


def test_ece_does_not_depend_on_the_order_of_tied_images() -> None:
    label, score = np.array([0, 0, 1, 1, 1, 0, 1, 0]), np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.8, 0.8, 0.8])
    values = {
        ece(label[order], score[order], 3) for order in (np.arange(8), np.arange(8)[::-1], [3, 7, 0, 2, 5, 1, 6, 4])
    }
    assert len(values) == 1


def test_wrong_input_is_named() -> None:
    with pytest.raises(
        MetricError, match=r"^Expected `score` in \[0, 1\], got 2.5 at index 1 \(1 such values\)\. Logits"
    ):
        brier([0, 1], [0.5, 2.5])
    with pytest.raises(ConfigError, match=r"^Expected `n_bins` of at least 1, got 0\.$"):
        ece([0, 1], [0.5, 0.5], 0)
    with pytest.raises(ConfigError, match=r"^Expected `prior` in \(0, 1\), got 0\.$"):
        cllr([0, 1], [0.5, 0.5], 0)
