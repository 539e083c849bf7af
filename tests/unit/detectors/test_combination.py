from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from forgery_det.core.errors import ConfigError
from forgery_det.detectors.combination import Combination, fit_combination

L2 = 0.03


def logits(
    n: int = 200, seed: int = 0, strengths: tuple[float, ...] = (1.0, 0.5, 0.2)
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 3 == 0).astype(int)
    columns = [strength * (2 * label - 1) + rng.standard_normal(n) for strength in strengths]
    return label, np.stack(columns, axis=1) * [1.0, 50.0, 0.01][: len(strengths)] + [0.0, 7.0, -0.97][: len(strengths)]


def test_with_all_weights_positive_it_is_scikit_learns_logistic_regression():
    label, logit = logits()
    fit = fit_combination(label, logit, L2)
    scaled = (logit - logit.mean(0)) / logit.std(0)
    model = LogisticRegression(C=1 / (L2 * len(label)), tol=1e-10, max_iter=10_000).fit(scaled, label)
    np.testing.assert_allclose(fit.mean, logit.mean(0))
    np.testing.assert_allclose(fit.spread, logit.std(0))
    np.testing.assert_allclose(fit.weight, model.coef_[0], atol=1e-5)
    assert fit.bias == pytest.approx(model.intercept_[0], abs=1e-5)
    np.testing.assert_allclose(fit.apply(logit), model.decision_function(scaled), atol=1e-4)


def test_at_the_bound_the_solution_meets_the_optimality_conditions():
    label, logit = logits(strengths=(1.0, -0.6, 0.3))
    fit = fit_combination(label, logit, L2)
    assert fit.weight[1] == 0
    assert min(fit.weight[0], fit.weight[2]) > 0
    scaled = (logit - logit.mean(0)) / logit.std(0)
    residual = expit(fit.apply(logit)) - label
    gradient = residual @ scaled / len(label) + L2 * np.array(fit.weight)
    np.testing.assert_allclose(gradient[[0, 2]], 0, atol=1e-6)
    assert gradient[1] > 0
    # So the mean score is the share of generated images.
    assert residual.mean() == pytest.approx(0, abs=1e-6)


def test_scale_and_offset_of_a_member_are_no_matter():
    label, logit = logits()
    moved = logit * [1000.0, 0.001, 3.0] + [5.0, -1.0, 400.0]
    np.testing.assert_allclose(
        fit_combination(label, moved).apply(moved), fit_combination(label, logit).apply(logit), rtol=1e-4, atol=1e-5
    )


def test_separable_members_get_finite_weights_and_a_constant_one_none():
    label = np.arange(40) % 2
    fit = fit_combination(label, np.stack([label * 2.0 - 1, np.full(40, 3.0)], axis=1))
    assert 0 < fit.weight[0] < 20
    assert fit.weight[1] == 0
    assert fit.spread[1] == 1


def test_fitted_weights_do_not_depend_on_the_order_of_images():
    label, logit = logits()
    order = np.random.default_rng(1).permutation(len(label))
    np.testing.assert_allclose(
        fit_combination(label[order], logit[order]).weight, fit_combination(label, logit).weight, atol=1e-6
    )


@pytest.mark.parametrize(
    ("label", "logit", "text"),
    [
        ([0, 1], [0.0, 1.0], r"Expected logits of shape \(images, members: any\), got \(2,\)"),
        ([0, 1], [[0.0], [np.nan]], "Expected finite logits of every member"),
        ([0, 0], [[0.0], [1.0]], r"Expected 2 labels of 0 and 1, both present, got shape \(2,\) with the values \[0\]"),
        ([0, 1, 1], [[0.0], [1.0]], r"Expected 2 labels of 0 and 1, both present, got shape \(3,\)"),
        ([0, 2], [[0.0], [1.0]], r"values \[0, 2\]"),
    ],
)
def test_what_cannot_be_fitted_is_refused(label, logit, text):
    with pytest.raises(ConfigError, match=text):
        fit_combination(label, logit)


def test_a_combination_is_checked():
    with pytest.raises(ConfigError, match="Expected one mean, spread and weight for each member, got 1, 2 and 1"):
        Combination((0.0,), (1.0, 1.0), (1.0,))
    with pytest.raises(ConfigError, match="weights of at least 0"):
        Combination((0.0,), (1.0,), (-1.0,))
    with pytest.raises(ConfigError, match="Expected finite numbers"):
        Combination((0.0,), (1.0,), (float("nan"),))
    with pytest.raises(ConfigError, match="Expected `l2` above 0, got 0"):
        fit_combination([0, 1], [[0.0], [1.0]], l2=0)
    with pytest.raises(ConfigError, match=r"members: 2\), got \(1, 3\)"):
        Combination.average(2).apply([[1.0, 2.0, 3.0]])
