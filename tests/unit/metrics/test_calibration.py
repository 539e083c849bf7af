from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from forgery_det.metrics.calibration import fit_isotonic, fit_platt, fit_temperature
from forgery_det.metrics.errors import MetricError, NotEstimableError
from forgery_det.metrics.probability import nll

FITS = [fit_temperature, fit_platt, fit_isotonic]


def overconfident(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times too large and shifted by one."""
    rng = np.random.default_rng(seed)
    true_logit = rng.normal(scale=2, size=n)
    return (rng.uniform(size=n) < special.expit(true_logit)).astype(int), np.round(3 * true_logit + 1, 1)


def test_temperature_equals_a_logistic_regression_without_intercept() -> None:
    label, logit = overconfident()
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, solver="newton-cholesky")
    slope = reference.fit(logit[:, None], label).coef_[0, 0]
    found = fit_temperature(label, logit)
    assert found.temperature == pytest.approx(1 / slope, rel=1e-6)
    assert not found.at_bound


def test_platt_equals_scikit_learn() -> None:
    label, logit = overconfident()
    reference = _SigmoidCalibration().fit(logit, label)
    found = fit_platt(label, logit)
    np.testing.assert_allclose(found.apply(logit), reference.predict(logit), atol=1e-6)
    assert found.slope == pytest.approx(1 / 3, rel=0.15)
    assert found.intercept == pytest.approx(-1 / 3, abs=0.15)


def test_isotonic_equals_scikit_learn_under_ties() -> None:
    label, logit = overconfident(400)
    reference = IsotonicRegression(out_of_bounds="clip").fit(logit, label)
    points = np.linspace(logit.min() - 5, logit.max() + 5, 1000)
    np.testing.assert_allclose(fit_isotonic(label, logit).apply(points), reference.predict(points), atol=1e-12)


def test_scores_of_new_images_improve() -> None:
    for fit in FITS:
        calibration = fit(*overconfident(seed=1))
        label, logit = overconfident(seed=2)
        score = calibration.apply(logit)
        assert nll(label, score) < nll(label, special.expit(logit)) - 0.2
        assert ((score >= 0) & (score <= 1)).all()
        assert (np.diff(score[np.argsort(logit)]) >= 0).all()


def test_separable_data_stay_finite() -> None:
    label, logit = np.array([0, 0, 1, 1]), np.array([-2.0, -1.0, 1.0, 2.0])
    assert fit_temperature(label, logit).temperature == 0.01
    assert fit_temperature(label, logit).at_bound
    platt = fit_platt(label, logit)
    # The smoothed targets are 3/4 and 1/4.
    assert np.abs(special.logit(platt.apply(logit))).max() < 3
    assert fit_isotonic(label, logit).apply([-9.0, 0.0, 9.0]).tolist() == [0.0, 0.5, 1.0]


def test_useless_and_inverted_logits() -> None:
    constant = fit_platt([0, 0, 0, 1], [2.0] * 4)
    assert constant.slope == 0.0
    assert constant.apply([2.0])[0] == pytest.approx((3 * 0.2 + 2 / 3) / 4)
    label, logit = overconfident()
    upside_down = fit_temperature(label, -logit)
    assert (upside_down.temperature, upside_down.at_bound) == (100.0, True)
    assert fit_platt(label, -logit).slope < 0
    assert len(set(fit_isotonic(label, -logit).apply(-logit))) < 10


@pytest.mark.parametrize("fit", FITS)
def test_wrong_input_is_named(fit) -> None:
    with pytest.raises(NotEstimableError, match=r"^not estimable \(n = 2: only generated images\)$"):
        fit([1, 1], [0, 1])
    with pytest.raises(
        MetricError, match=r"^Expected finite `logit`, got 1 infinite of 2 values, the first at index 1\.$"
    ):
        fit([0, 1], [0, np.inf])
    with pytest.raises(MetricError, match=r"^Expected `logit` without NaN, got 1 NaN of 1 values"):
        fit([0, 0, 1], [0.0, 2.0, 1.0]).apply([np.nan])
