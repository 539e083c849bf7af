from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from forgery_det.core.errors import ConfigError, UnknownNameError
from forgery_det.metrics import bootstrap_interval, resampling
from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.errors import MetricError
from forgery_det.metrics.ranking import auroc
from forgery_det.metrics.registry import METRICS
from forgery_det.metrics.thresholded import tpr

RNG_SEED = 5


def grouped(n_clusters: int = 60, seed: int = 0, mixed: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clusters of 1 to 4 images; the last ones hold both classes if `mixed`."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n_clusters), rng.integers(1, 5, n_clusters))
    label = cluster % 2
    if mixed:
        both = cluster >= n_clusters - 10
        label = np.where(both, rng.integers(0, 2, len(cluster)), label)
    logit = np.round(label + rng.normal(size=n_clusters)[cluster] + 0.3 * rng.normal(size=len(cluster)), 1)
    return label, logit, cluster


def plain_replicates(label, logit, cluster, function, n_replicates: int, seed: int) -> np.ndarray:
    """The same resampling written as a loop over indices; an independent reference."""
    rng = np.random.default_rng(seed)
    members = {c: np.flatnonzero(cluster == c) for c in np.unique(cluster)}
    strata: dict[frozenset[int], list[int]] = {}
    for c, rows in members.items():
        strata.setdefault(frozenset(label[rows].tolist()), []).append(c)
    values = []
    for _ in range(n_replicates):
        drawn = [c for names in strata.values() for c in rng.choice(names, len(names))]
        rows = np.concatenate([members[c] for c in drawn])
        values.append(function(label[rows], logit[rows]))
    return np.array(values)


@pytest.mark.parametrize("mixed", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    ("metric", "threshold", "reference"),
    [
        ("auroc", None, roc_auc_score),
        pytest.param("average_precision", None, average_precision_score, marks=pytest.mark.slow),
        ("tpr", 0.6, lambda y, s: np.mean(s[y == 1] >= 0.6)),
    ],
)
def test_interval_equals_a_plain_loop_within_monte_carlo_error(metric, threshold, reference, mixed) -> None:
    label, logit, cluster = grouped(mixed=mixed)
    loop = plain_replicates(label, logit, cluster, reference, 500, seed=1)
    ours = cluster_bootstrap(metric, label, logit, cluster, threshold=threshold, n_replicates=6000)
    low, high = np.quantile(loop, [0.025, 0.975])
    # The error of a 2.5 % quantile from 500 draws is about 0.12 standard deviations; four of them, both ends.
    margin = 4 * 0.12 * loop.std()
    assert ours.ci_low == pytest.approx(low, abs=margin)
    assert ours.ci_high == pytest.approx(high, abs=margin)
    assert ours.value == pytest.approx(reference(label, logit))


def test_clusters_widen_the_interval_as_they_should() -> None:
    label, logit, cluster = grouped(mixed=False)
    by_cluster = cluster_bootstrap("auroc", label, logit, cluster)
    by_image = cluster_bootstrap("auroc", label, logit, np.arange(len(label)))
    assert by_cluster.ci_high - by_cluster.ci_low > 1.2 * (by_image.ci_high - by_image.ci_low)


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_counts_and_rows_give_the_same_replicates(name: str) -> None:
    """`of_counts` on draws must equal the public function on the images written out, for every metric."""
    metric = METRICS[name]
    assert metric.of_counts is not None
    label, logit, cluster = grouped(mixed=True)
    values = 1 / (1 + np.exp(-logit)) if metric.values == "score" else logit
    threshold = 0.6 if metric.needs_threshold else None
    options = {"threshold": threshold, "n_replicates": 200}
    fast = cluster_bootstrap(name, label, values, cluster, **options)
    bare = metric.function

    def by_rows(*arguments: object) -> float:
        return bare(*arguments)

    slow = cluster_bootstrap(by_rows, label, values, cluster, **options)
    if metric.needs_threshold:
        # Two cells make other kinds of clusters than distinct logits do, so the draws differ.
        assert slow.value == fast.value
        assert slow.ci_low == pytest.approx(fast.ci_low, abs=0.05)
    else:
        assert (slow.value, slow.ci_low, slow.ci_high) == pytest.approx((fast.value, fast.ci_low, fast.ci_high))


def test_percentile_and_bca_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=25), rng.normal(size=30) + 1.4
    label = np.repeat([0, 1], [25, 30])
    logit = np.concatenate([real, generated])

    def area(x: np.ndarray, y: np.ndarray) -> float:
        return float((y[:, None] > x).mean())

    for method in ("percentile", "bca"):
        ours = cluster_bootstrap("auroc", label, logit, np.arange(55), method=method, n_replicates=20000)
        theirs = stats.bootstrap((real, generated), area, method=method, n_resamples=2000, vectorized=False, rng=1)
        spread = theirs.standard_error
        assert ours.ci_low == pytest.approx(theirs.confidence_interval.low, abs=0.25 * spread)
        assert ours.ci_high == pytest.approx(theirs.confidence_interval.high, abs=0.25 * spread)


def test_acceleration_equals_the_jackknife_written_out() -> None:
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=12), rng.normal(size=15) + 1
    label, logit = np.repeat([0, 1], [12, 15]), np.concatenate([real, generated])
    _, cell = np.unique(logit, return_inverse=True)
    code = np.arange(27)
    design = resampling.cluster_design(label, code, 27, cell)
    projection = resampling.CountProjection(design, code, label, np.unique(logit), cell)
    auroc_of = METRICS["auroc"].of_counts
    assert auroc_of is not None
    ours = bootstrap_interval._acceleration(design, lambda draws: auroc_of(projection.counts(draws)), 0, 27)
    third = second = 0.0
    for wanted, n in ((0, 12), (1, 15)):
        rows = np.flatnonzero(label == wanted)
        left = np.array([roc_auc_score(np.delete(label, row), np.delete(logit, row)) for row in rows])
        influence = (n - 1) * (left.mean() - left)
        third += (influence**3).sum() / n**3
        second += (influence**2).sum() / n**2
    assert ours == pytest.approx(third / (6 * second**1.5), abs=1e-12)


def test_grouped_jackknife_is_close_to_the_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 600)
    logit = rng.normal(size=600) + 2 * label
    full = cluster_bootstrap("auroc", label, logit, np.arange(600), method="bca")
    monkeypatch.setattr(resampling, "_JACKKNIFE_KINDS", 100)
    grouped_ = cluster_bootstrap("auroc", label, logit, np.arange(600), method="bca")
    assert grouped_ != full
    assert grouped_.ci_low == pytest.approx(full.ci_low, abs=0.1 * (full.ci_high - full.ci_low))


def test_same_seed_same_interval_whatever_the_rows_names_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    label, logit, cluster = grouped()
    first = cluster_bootstrap("auroc", label, logit, cluster, seed=RNG_SEED)
    order = np.random.default_rng(9).permutation(len(label))
    assert cluster_bootstrap("auroc", label[order], logit[order], cluster[order], seed=RNG_SEED) == first
    names = np.array([f"photo-{c:03d}" for c in cluster], dtype=object)
    assert cluster_bootstrap("auroc", label, logit, names, seed=RNG_SEED) == first
    monkeypatch.setattr(resampling, "BLOCK_ELEMENTS", 500)
    assert cluster_bootstrap("auroc", label, logit, cluster, seed=RNG_SEED) == first
    assert cluster_bootstrap("auroc", label, logit, cluster, seed=RNG_SEED + 1) != first


def test_multinomial_and_single_draws_have_one_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    label = rng.integers(0, 2, 400)
    logit = np.round(rng.normal(size=400) + label)
    many = cluster_bootstrap("auroc", label, logit, np.arange(400), n_replicates=5000)
    monkeypatch.setattr(resampling, "_MULTINOMIAL_COST", 10**9)
    single = cluster_bootstrap("auroc", label, logit, np.arange(400), n_replicates=5000)
    assert many != single
    assert many.ci_low == pytest.approx(single.ci_low, abs=0.004)
    assert many.ci_high == pytest.approx(single.ci_high, abs=0.004)


def test_bins_keep_the_value_and_nearly_the_interval() -> None:
    rng = np.random.default_rng(7)
    label = rng.integers(0, 2, 3000)
    logit = rng.normal(size=3000) + label
    exact = cluster_bootstrap("auroc", label, logit, np.arange(3000) // 3)
    binned = cluster_bootstrap("auroc", label, logit, np.arange(3000) // 3, n_bins=256)
    assert binned.value == exact.value
    assert binned.ci_low == pytest.approx(exact.ci_low, abs=0.003)
    assert binned.ci_high == pytest.approx(exact.ci_high, abs=0.003)


@pytest.mark.parametrize(
    ("metric", "m", "unit"),
    [
        ("tpr", 7, "generated clusters"),
        ("accuracy", 12, "clusters"),
        ("auroc", 5, "pairs of clusters"),
        ("balanced_accuracy", 5, "pairs of clusters"),
    ],
)
def test_a_perfect_value_gets_an_exact_bound_and_says_so(metric: str, m: int, unit: str) -> None:
    label = np.repeat([0, 1], [10, 14])
    cluster = np.repeat(np.arange(12), 2)
    threshold = 0.5 if METRICS[metric].needs_threshold else None
    estimate = cluster_bootstrap(metric, label, label.astype(float), cluster, threshold=threshold)
    low = stats.binomtest(m, m).proportion_ci(method="exact").low
    assert (estimate.value, estimate.ci_high) == (1.0, 1.0)
    assert estimate.ci_low == pytest.approx(low)
    assert estimate.note == f"every replicate gave 1: Clopper-Pearson on {m} {unit}"


def test_a_rate_of_zero_gets_the_upper_bound() -> None:
    estimate = cluster_bootstrap("fpr", np.zeros(50, dtype=int), np.zeros(50), np.arange(50), threshold=1.0)
    assert (estimate.value, estimate.ci_low, estimate.n) == (0.0, 0.0, 50)
    assert estimate.ci_high == pytest.approx(stats.binomtest(0, 50).proportion_ci(method="exact").high)


@pytest.mark.parametrize(
    ("metric", "logit"), [("average_precision", [0, 0, 0, 1, 1, 1]), ("auroc", [2, 2, 2, 2, 2, 2])]
)
def test_no_width_without_a_bound_is_no_interval(metric: str, logit: list[int]) -> None:
    estimate = cluster_bootstrap(metric, [0, 0, 0, 1, 1, 1], logit, range(6))
    assert estimate.value in (0.5, 1.0)
    assert (estimate.ci_low, estimate.ci_high) == (None, None)
    assert estimate.note.startswith("interval not estimable: every replicate gave the same value")


def test_few_clusters_are_noted() -> None:
    label, logit, cluster = grouped(8, mixed=False)
    estimate = cluster_bootstrap("auroc", label, logit, cluster)
    assert estimate.note == "interval unreliable (4 real and 4 generated clusters, fewer than 5)"
    assert estimate.ci_low is not None


@pytest.mark.parametrize(
    ("label", "note"),
    [
        ([], "not estimable (n = 0: no images)"),
        ([1], "not estimable (n = 1: only generated images)"),
        ([0, 0], "not estimable (n = 2: only real images)"),
    ],
)
def test_what_cannot_be_estimated_is_an_estimate_without_a_value(label: list[int], note: str) -> None:
    estimate = cluster_bootstrap("auroc", label, [0.0] * len(label), range(len(label)))
    assert (estimate.value, estimate.ci_low, estimate.ci_high) == (None, None, None)
    assert (estimate.n, estimate.note) == (len(label), note)


def test_n_counts_the_images_of_the_metric() -> None:
    label, logit, cluster = grouped()
    assert cluster_bootstrap("tpr", label, logit, cluster, threshold=0).n == label.sum()
    assert cluster_bootstrap("fpr", label, logit, cluster, threshold=0).n == (1 - label).sum()
    assert cluster_bootstrap("auroc", label, logit, cluster).n == len(label)


def test_a_bare_function_may_be_passed() -> None:
    label, logit, cluster = grouped()
    named = cluster_bootstrap("auroc", label, logit, cluster, n_replicates=50)
    assert cluster_bootstrap(auroc, label, logit, cluster, n_replicates=50) == named
    assert cluster_bootstrap(tpr, label, logit, cluster, threshold=0.5, n_replicates=50).value == tpr(label, logit, 0.5)


def test_replicates_that_cannot_be_computed_are_counted() -> None:
    from forgery_det.metrics.errors import NotEstimableError

    def needs_the_top_image(label: np.ndarray, logit: np.ndarray) -> float:
        if logit.max() < 9.0:
            raise NotEstimableError("not estimable (no top image)")
        return float(logit.mean())

    logit = np.arange(10.0)
    estimate = cluster_bootstrap(needs_the_top_image, np.arange(10) % 2, logit, range(10), n_replicates=200)
    assert estimate.value == 4.5
    count = int(estimate.note.split(" of 200 replicates not estimable")[0])
    # The top image is missing from a draw of its class with probability (4/5)^5 = 0.33.
    assert 40 < count < 92


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"metric": "aurok"}, UnknownNameError, r"^Unknown metric 'aurok': did you mean 'auroc'"),
        ({"metric": "tpr"}, ConfigError, r"^Expected `threshold` \(from `val`\) for metric 'tpr', got None\.$"),
        ({"threshold": 0.0}, ConfigError, r"^Expected no `threshold` for metric 'auroc', got 0\.0\.$"),
        ({"n_replicates": 1}, ConfigError, r"^Expected `n_replicates` of at least 2, got 1\.$"),
        ({"confidence": 95}, ConfigError, r"^Expected `confidence` in \(0, 1\), got 95\.$"),
        ({"seed": -1}, ConfigError, r"^Expected `seed` of at least 0, got -1\.$"),
        ({"method": "basic"}, ConfigError, r"^Expected `method` in \{percentile, bca\}, got 'basic'\.$"),
        ({"n_bins": 1}, ConfigError, r"^Expected `n_bins` of at least 2, got 1\.$"),
        ({"metric": "brier", "n_bins": 9}, ConfigError, r"^Expected `n_bins` for a ranking metric only"),
        ({"cluster": [1, 2]}, MetricError, r"^Expected arrays of equal length, got label 4, cluster 2\.$"),
        ({"cluster": ["a", None, "b", None]}, MetricError, r"got 2 of 4, the first at index 1\. Give an image without"),
        ({"cluster": np.array(["a", 1, 2, 3], dtype=object)}, MetricError, r"^Expected `cluster` of one type"),
    ],
)
def test_wrong_options_are_named(arguments: dict[str, object], error: type[Exception], text: str) -> None:
    given = {"metric": "auroc", "label": [0, 0, 1, 1], "logit": [0, 0.5, 0.25, 1], "cluster": [1, 2, 3, 4], **arguments}
    with pytest.raises(error, match=text):
        cluster_bootstrap(**given)
