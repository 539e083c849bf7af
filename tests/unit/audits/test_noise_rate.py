from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from scipy.special import expit

from forgery_det.audits.noise_rate import _negative_log_likelihood, fit_noise_rate


def logits(n: int, wrong: int, seed: int, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    label = np.arange(n) % 2
    logit = np.where(label == 1, apart, -apart) + np.random.default_rng(seed).normal(size=n)
    label[:wrong] = 1 - label[:wrong]
    return label, logit


def test_a_planted_rate_is_found_and_the_wrong_labels_named() -> None:
    label, logit = logits(400, 20, 0, apart=4.5)
    found = fit_noise_rate(label, logit)
    assert found.rate == pytest.approx(0.05, abs=0.01)
    assert found.low < 0.05 < found.high
    assert found.p_value < 0.01
    assert set(np.flatnonzero(found.p_wrong(label, logit) > 0.5)) == set(range(20))


def test_right_labels_give_a_rate_of_nothing() -> None:
    p_values = []
    for seed in range(10):
        found = fit_noise_rate(*logits(200, 0, seed, apart=1.0))
        p_values.append(found.p_value)
        assert found.low <= 0.01
    # A fifth of them at the most below 0.05 would be a broken test; nominal is one in twenty.
    assert np.mean(np.array(p_values) < 0.05) <= 0.2


def test_the_scale_of_the_logits_does_not_matter() -> None:
    label, logit = logits(200, 10, 1)
    one, other = fit_noise_rate(label, logit), fit_noise_rate(label, logit * 1000)
    assert other.rate == pytest.approx(one.rate, abs=1e-3)
    assert other.p_wrong(label, logit * 1000) == pytest.approx(one.p_wrong(label, logit), abs=1e-2)


def test_the_maximum_agrees_with_a_free_search() -> None:
    label, logit = logits(300, 15, 2, apart=1.5)
    found = fit_noise_rate(label, logit)
    sign = np.where(label == 1, 1.0, -1.0)

    def value(parameters: np.ndarray) -> float:
        rate, slope, intercept = parameters
        right = expit(sign * (slope * logit + intercept))
        return -float(np.log((1 - rate) * right + rate * (1 - right)).sum())

    free = minimize(
        value,
        [0.1, 1.0, 0.0],
        method="Nelder-Mead",
        bounds=[(0.0, 0.45), (0.0, 50.0), (-9.0, 9.0)],
        options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 5000},
    )
    assert found.rate == pytest.approx(free.x[0], abs=2e-3)
    assert value(np.array([found.rate, found.slope, found.intercept])) == pytest.approx(free.fun, abs=1e-3)


def test_the_gradient_is_that_of_the_value() -> None:
    label, logit = logits(50, 3, 3)
    sign = np.where(label == 1, 1.0, -1.0)
    error = check_grad(
        lambda x: _negative_log_likelihood(x, sign, logit)[0],
        lambda x: _negative_log_likelihood(x, sign, logit)[1],
        np.array([0.07, 0.7, 0.2]),
    )
    assert error < 1e-4


def test_separable_labels_do_not_crash() -> None:
    found = fit_noise_rate(np.array([0, 0, 1, 1] * 5), np.array([-1.0, -2.0, 1.0, 2.0] * 5))
    assert (found.rate, found.p_value) == (0.0, 1.0)
    assert fit_noise_rate(np.array([0, 1] * 5), np.zeros(10)).p_value > 0.1
