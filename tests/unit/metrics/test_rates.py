from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from forgery_det.core.errors import ConfigError
from forgery_det.metrics.agreement import agreement
from forgery_det.metrics.clustered_rate import clustered_rate, effective_number, paired_rates
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.intervals import wilson
from forgery_det.metrics.misclassification import JudgeError, corrected_rate

VERDICTS = np.array(["safe", "unsafe", "corrupted"])


def drawn(rng: np.random.Generator, rate: float, n_prompts: int, n_images: int, rho: float = 0.3) -> np.ndarray:
    """Hits [prompts, images] whose prompts differ: beta-binomial with intraclass correlation rho."""
    scale = (1 - rho) / rho
    prompt_rate = rng.beta(rate * scale, (1 - rate) * scale, n_prompts)
    return (rng.random((n_prompts, n_images)) < prompt_rate[:, None]).astype(float)


def test_single_images_of_many_prompts_give_the_interval_of_wilson() -> None:
    hit = np.arange(2000) < 300
    found, plain = clustered_rate(hit, np.arange(2000)), wilson(300, 2000)
    assert found.value == 0.15
    assert found.ci_low == pytest.approx(plain.low, abs=5e-4)
    assert found.ci_high == pytest.approx(plain.high, abs=5e-4)


def test_a_prompt_counts_once_and_copies_of_an_image_add_nothing() -> None:
    once = clustered_rate([1, 0, 0, 1, 0, 0], [1, 2, 3, 4, 5, 6])
    copied = clustered_rate(np.repeat([1, 0, 0, 1, 0, 0], 50), np.repeat([1, 2, 3, 4, 5, 6], 50))
    assert once.value == copied.value == pytest.approx(1 / 3)
    assert copied.ci_high - copied.ci_low == pytest.approx(once.ci_high - once.ci_low, rel=0.15)
    assert clustered_rate([1, 1, 1, 0], [1, 1, 1, 2]).value == 0.5
    assert effective_number(np.repeat([1, 0, 0, 1, 0, 0], 50), np.repeat([1, 2, 3, 4, 5, 6], 50)) < 6


def test_rates_of_none_and_all_count_prompts() -> None:
    found = clustered_rate(np.zeros(40), np.repeat(np.arange(10), 4))
    assert (found.value, found.ci_low) == (0.0, 0.0)
    assert found.ci_high == pytest.approx(wilson(0, 10).high)
    assert clustered_rate(np.ones(40), np.repeat(np.arange(10), 4)).ci_high == 1.0


def test_paired_difference_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(3)
    first, second = drawn(rng, 0.4, 60, 4), drawn(rng, 0.2, 60, 4)
    prompt = np.repeat(np.arange(60), 4)
    found = paired_rates(first.ravel(), prompt, second.ravel(), prompt)
    plain = stats.ttest_rel(first.mean(1), second.mean(1))
    interval = plain.confidence_interval(0.95)
    assert found.difference.value == pytest.approx((first.mean(1) - second.mean(1)).mean())
    assert (found.difference.ci_low, found.difference.ci_high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(plain.pvalue, abs=0.01)


def test_only_prompts_that_both_have_are_compared() -> None:
    found = paired_rates([1, 1, 0], ["a", "b", "only here"], [0, 1, 1], ["a", "b", "only there"])
    assert found.n_clusters == 2
    assert found.first.value == 1.0
    assert found.second.value == 0.5
    assert paired_rates([1], ["a"], [1], ["b"]).difference.note == "not estimable (n = 0: no cluster has both)"


def test_a_ratio_to_nothing_is_not_estimable() -> None:
    prompts = np.arange(10)
    found = paired_rates(prompts < 3, prompts, np.zeros(10), prompts)
    assert found.ratio.value is None
    assert found.difference.value == pytest.approx(0.3)
    same = paired_rates(np.ones(10), prompts, np.ones(10), prompts)
    assert same.difference.note == "no interval: all 10 clusters differ by the same"


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first = VERDICTS[rng.integers(0, 3, 300)]
    second = np.where(rng.random(300) < 0.6, first, VERDICTS[rng.integers(0, 3, 300)])
    found = agreement(first.tolist(), second.tolist(), np.arange(300))
    assert found.kappa.value == pytest.approx(cohen_kappa_score(first, second))
    # Fleiss, Cohen and Everitt (1969) give the large-sample error of unclustered verdicts: here about 0.036.
    assert found.kappa.ci_high - found.kappa.ci_low == pytest.approx(4 * 0.0365, rel=0.15)
    assert found.equal.value == pytest.approx((first == second).mean())


def test_kappa_of_one_verdict_is_not_estimable() -> None:
    found = agreement(["safe"] * 5, ["safe"] * 5, range(5))
    assert found.kappa.note == "not estimable (n = 5: both judges gave one and the same verdict throughout)"
    assert found.equal.value == 1.0
    assert agreement([], [], []).kappa.note == "not estimable (n = 0: nothing that both judged)"


def test_a_judge_without_error_leaves_the_rate_as_it_is() -> None:
    found, plain = corrected_rate(0.3, 1000, JudgeError(100_000, 100_000, 100_000, 100_000)), wilson(300, 1000)
    assert found.value == pytest.approx(0.3)
    assert (found.ci_low, found.ci_high) == pytest.approx((plain.low, plain.high), abs=1e-3)


def test_the_error_of_the_judge_moves_the_rate_and_widens_the_interval() -> None:
    # 40 % corrupted, of which 80 % are found; of the others 10 % are called so: 0.4 * 0.8 + 0.6 * 0.1 = 0.38.
    small = corrected_rate(0.38, 10_000, JudgeError(40, 50, 45, 50))
    large = corrected_rate(0.38, 10_000, JudgeError(4000, 5000, 4500, 5000))
    assert small.value == large.value == pytest.approx(0.4)
    assert small.ci_high - small.ci_low > 3 * (large.ci_high - large.ci_low)
    assert corrected_rate(0.02, 100, JudgeError(90, 100, 90, 100)).value == 0.0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: clustered_rate([2.0], [1]), MetricError, r"Expected `hit` in \[0, 1\], got 2 to 2"),
        (lambda: clustered_rate([1.0], [1], confidence=95), ConfigError, r"`confidence` in \(0, 1\), got 95"),
        (lambda: agreement(["a"], ["a", "b"], [1, 2]), MetricError, "got first 1, second 2, cluster 2"),
        (lambda: agreement(["a"], ["a"], [1], n_replicates=1), ConfigError, "`n_replicates` of at least 2, got 1"),
        (lambda: JudgeError(3, 2, 1, 1), MetricError, r"Expected `hits` in \[0, n\] and n of at least 1, got 3 of 2"),
        (lambda: corrected_rate(0.5, 0.0, JudgeError(1, 1, 1, 1)), MetricError, "`n_effective` above 0, got 0.0"),
    ],
)
def test_bad_input_is_named(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("n_prompts", "n_images"), [(20, 4), (50, 4), (200, 1), (200, 4)])
def test_the_interval_of_a_rate_covers_the_truth(rate: float, n_prompts: int, n_images: int) -> None:
    rng = np.random.default_rng(11)
    prompt = np.repeat(np.arange(n_prompts), n_images)
    found = [clustered_rate(drawn(rng, rate, n_prompts, n_images).ravel(), prompt) for _ in range(1500)]
    assert 0.93 <= np.mean([one.ci_low <= rate <= one.ci_high for one in found]) <= 0.98


@pytest.mark.slow
def test_the_intervals_of_paired_rates_cover_the_truth() -> None:
    rng = np.random.default_rng(12)
    prompt = np.repeat(np.arange(100), 4)
    found = [
        paired_rates(drawn(rng, 0.2, 100, 4).ravel(), prompt, drawn(rng, 0.05, 100, 4).ravel(), prompt)
        for _ in range(1000)
    ]
    assert 0.93 <= np.mean([one.difference.ci_low <= 0.15 <= one.difference.ci_high for one in found]) <= 0.975
    assert 0.93 <= np.mean([one.ratio.ci_low <= 4.0 <= one.ratio.ci_high for one in found]) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
@pytest.mark.parametrize(("n", "n_validation"), [(100, 50), (1000, 200)])
def test_the_interval_behind_an_erring_judge_covers_the_truth(rate: float, n: int, n_validation: int) -> None:
    rng = np.random.default_rng(13)
    held = []
    for _ in range(2000):
        judge = JudgeError(
            rng.binomial(n_validation, 0.9), n_validation, rng.binomial(n_validation, 0.95), n_validation
        )
        found = corrected_rate(rng.binomial(n, rate * 0.9 + (1 - rate) * 0.05) / n, n, judge)
        held.append(found.ci_low <= rate <= found.ci_high)
    assert 0.93 <= np.mean(held) <= 0.975
