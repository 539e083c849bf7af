"""Does a 95 % interval hold the truth in 95 % of repeated samples? Simulated, for designs where the truth is known.

Each image has logit `lift * label + sqrt(rho) * cluster effect + sqrt(1 - rho) * own noise`, all normal. Every image
by itself is N(lift * label, 1): AUROC = Phi(lift / sqrt 2) and TPR at t = Phi(lift - t), however strong the clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special, stats

from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.comparison import Comparison
from forgery_det.metrics.delong import delong, paired_delong
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.intervals import clopper_pearson, wilson
from forgery_det.metrics.paired_bootstrap import paired_bootstrap
from forgery_det.metrics.probability import brier

LIFT, RHO = 1.2, 0.5
TRUE_AUROC = float(special.ndtr(LIFT / np.sqrt(2)))


class Sample:
    """Two detectors on `n_clusters` real and as many generated clusters of 1 to 4 images."""

    def __init__(self, rng: np.random.Generator, n_clusters: int, lift: float = LIFT, single: bool = False) -> None:
        sizes = np.ones(2 * n_clusters, dtype=int) if single else rng.integers(1, 5, 2 * n_clusters)
        self.cluster = np.repeat(np.arange(2 * n_clusters), sizes)
        self.label = (self.cluster >= n_clusters).astype(int)
        shared, own = rng.normal(size=2 * n_clusters)[self.cluster], rng.normal(size=(3, len(self.cluster)))
        self.logit = lift * self.label + np.sqrt(RHO) * shared + np.sqrt(1 - RHO) * own[0]
        # The second detector shares the cluster effect and half of the noise, and is a little weaker.
        noise = np.sqrt(0.5) * (own[0] + own[1])
        self.second = (lift - 0.2) * self.label + np.sqrt(RHO) * shared + np.sqrt(1 - RHO) * noise


def coverage(
    interval: Callable[[Sample], Estimate | Comparison],
    truth: float,
    n_clusters: int,
    *,
    n_samples: int = 1500,
    **design,
) -> float:
    rng = np.random.default_rng(20240)
    held = []
    for _ in range(n_samples):
        found = interval(Sample(rng, n_clusters, **design))
        held.append(found.ci_low is not None and found.ci_low <= truth <= found.ci_high)
    return float(np.mean(held))


def large_sample_average_precision() -> float:
    """AP at equal shares: the mean over generated images of TPR / (TPR + FPR) at their own logit."""
    x = stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000) + LIFT
    tpr, fpr = special.ndtr(LIFT - x), special.ndtr(-x)
    return float(np.mean(tpr / (tpr + fpr)))


def true_brier() -> float:
    grid = stats.norm.ppf((np.arange(400_000) + 0.5) / 400_000)
    label = np.repeat([0, 1], len(grid))
    return brier(label, special.expit(np.concatenate([grid, grid + LIFT])))


def boot(metric: str, **options: object) -> Callable[[Sample], Estimate]:
    return lambda s: cluster_bootstrap(metric, s.label, s.logit, s.cluster, n_replicates=400, **options)


def boot_brier(s: Sample) -> Estimate:
    return cluster_bootstrap("brier", s.label, special.expit(s.logit), s.cluster, n_replicates=400)


def boot_difference(s: Sample) -> Comparison:
    return paired_bootstrap("auroc", s.label, s.logit, s.second, s.cluster, n_replicates=400)


TRUE_DIFFERENCE = TRUE_AUROC - float(special.ndtr((LIFT - 0.2) / np.sqrt(2)))
TRUE_BALANCED = 0.5 * float(special.ndtr(LIFT - 0.5) + special.ndtr(0.5))
NOMINAL = {
    "auroc, percentile": (boot("auroc"), TRUE_AUROC),
    "auroc, BCa": (boot("auroc", method="bca"), TRUE_AUROC),
    "auroc, 64 bins": (boot("auroc", n_bins=64), TRUE_AUROC),
    "auroc, DeLong by cluster": (lambda s: delong(s.label, s.logit, cluster=s.cluster), TRUE_AUROC),
    "average precision": (boot("average_precision"), large_sample_average_precision()),
    "tpr": (boot("tpr", threshold=0.5), float(special.ndtr(LIFT - 0.5))),
    "tpr, BCa": (boot("tpr", threshold=0.5, method="bca"), float(special.ndtr(LIFT - 0.5))),
    "fpr": (boot("fpr", threshold=1.0), float(special.ndtr(-1.0))),
    "balanced accuracy": (boot("balanced_accuracy", threshold=0.5), TRUE_BALANCED),
    "brier": (boot_brier, true_brier()),
    "difference of auroc, bootstrap": (boot_difference, TRUE_DIFFERENCE),
    "difference of auroc, DeLong by cluster": (
        lambda s: paired_delong(s.label, s.logit, s.second, cluster=s.cluster),
        TRUE_DIFFERENCE,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOMINAL)
def test_coverage_with_200_clusters_a_class_is_nominal(name: str) -> None:
    interval, truth = NOMINAL[name]
    assert 0.93 <= coverage(interval, truth, 200) <= 0.97


@pytest.mark.slow
def test_delong_of_independent_images_is_nominal() -> None:
    def difference(s: Sample) -> Comparison:
        return paired_delong(s.label, s.logit, s.second)

    assert 0.93 <= coverage(lambda s: delong(s.label, s.logit), TRUE_AUROC, 100, single=True) <= 0.97
    assert 0.93 <= coverage(difference, TRUE_DIFFERENCE, 100, single=True) <= 0.97


@pytest.mark.slow
def test_ignoring_the_clusters_covers_too_little() -> None:
    """The reason for clusters: the same data with every image as its own cluster."""

    def by_image(s: Sample) -> Estimate:
        return delong(s.label, s.logit)

    assert coverage(by_image, TRUE_AUROC, 150) < 0.90


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auroc, percentile", "average precision", "balanced accuracy"])
def test_five_clusters_are_too_few_as_the_documentation_says(name: str) -> None:
    interval, truth = NOMINAL[name]
    assert coverage(interval, truth, 5, n_samples=600) < 0.93


@pytest.mark.slow
def test_near_one_the_exact_bound_saves_the_interval() -> None:
    """A TPR of 0.986 on 30 images: all of them are found in two samples of three, and the replicates then all agree."""
    truth = float(special.ndtr(LIFT + 1.0))
    assert coverage(boot("tpr", threshold=-1.0), truth, 30, n_samples=600, single=True) >= 0.95


@pytest.mark.parametrize(("n", "rate"), [(100, 0.3), (100, 0.5), (500, 0.05), (1000, 0.2)])
def test_wilson_covers_nominally_and_clopper_pearson_at_least(n: int, rate: float) -> None:
    """No simulation: the coverage is a finite sum of binomial probabilities."""
    probability = stats.binom.pmf(np.arange(n + 1), n, rate)
    covered = {
        function: sum(p for k, p in enumerate(probability) if function(k, n).low <= rate <= function(k, n).high)
        for function in (wilson, clopper_pearson)
    }
    assert 0.93 <= covered[wilson] <= 0.97
    assert 0.95 <= covered[clopper_pearson] <= 0.975
