from __future__ import annotations

import numpy as np
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.conformal import fit_abstention
from forgery_det.metrics.errors import NotEstimableError


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.5])
def test_answers_equal_the_p_values_written_out(alpha: float) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 120)
    logit = np.round(rng.normal(size=120) + label, 1)
    found = fit_abstention(label, logit, alpha)
    for x in np.arange(-4, 5, 0.1).round(1):
        generated, real = logit[label == 1], logit[label == 0]
        p_generated = (1 + (generated <= x).sum()) / (len(generated) + 1)
        p_real = (1 + (real >= x).sum()) / (len(real) + 1)
        answer = {name for name, p in ((1, p_generated), (0, p_real)) if p > alpha}
        expected = answer.pop() if len(answer) == 1 else -1
        assert found.apply([x])[0] == expected


def test_each_class_is_left_out_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(1)
    left_out = np.zeros(2)
    for _ in range(500):
        found = fit_abstention(np.repeat([0, 1], [39, 59]), rng.normal(size=98) + np.repeat([0, 1.0], [39, 59]), 0.1)
        new = rng.normal(size=20)
        left_out += [(new > found.real_up_to).mean() / 500, (new + 1 < found.generated_from).mean() / 500]
    # 40 * 0.1 and 60 * 0.1 are whole numbers, so the promise is met exactly and not only kept.
    np.testing.assert_allclose(left_out, 0.1, atol=0.015)


def test_a_small_val_rules_nothing_out() -> None:
    found = fit_abstention([0] * 18 + [1] * 18, np.arange(36), 0.05)
    assert (found.generated_from, found.real_up_to) == (-np.inf, np.inf)
    assert found.apply([-1e9, 1e9]).tolist() == [-1, -1]


def test_a_logit_like_neither_class_is_an_abstention() -> None:
    label, logit = np.repeat([0, 1], 100), np.concatenate([np.arange(100), np.arange(100) + 1000])
    found = fit_abstention(label, logit, 0.05)
    assert found.apply([50, 500, 1050]).tolist() == [0, -1, 1]


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^Expected `alpha` in \(0, 1\), got 1\.$"):
        fit_abstention([0, 1], [0, 1], 1)
    with pytest.raises(NotEstimableError, match=r"^not estimable \(n = 1: only real images\)$"):
        fit_abstention([0], [0.0])
