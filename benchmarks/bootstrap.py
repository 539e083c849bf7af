"""How fast is the cluster bootstrap, against a plain loop over scikit-learn? Prints ratios; asserts nothing.

    OMP_NUM_THREADS=1 python benchmarks/bootstrap.py [--images 1000000] [--replicates 1000] [--baseline-replicates 10]

The baseline draws rows and calls scikit-learn. It is timed on fewer replicates, which the table states, and scaled up:
its time is the same for every replicate. Ours is timed in full. Times are processor seconds of one
thread, so that other work on the machine weighs little; peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.delong import delong


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def baseline(label: np.ndarray, logit: np.ndarray, function: Callable[..., float], replicates: int) -> float:
    """Seconds a replicate of a loop over a scikit-learn metric; rows are drawn one by one, without clusters."""
    rng = np.random.default_rng(0)

    def loop() -> None:
        for _ in range(replicates):
            rows = rng.integers(0, len(label), len(label))
            function(label[rows], logit[rows])

    return seconds(loop) / replicates


def show(name: str, took_s: float, reference_s: float | None = None) -> None:
    ratio = f"{reference_s / took_s:8.0f} x" if reference_s else ""
    print(f"{name:62s} {took_s:9.2f} s {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--baseline-replicates", type=int, default=10)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, given.images)
    logit = rng.normal(size=given.images) + label
    each_its_own = np.arange(given.images)
    crops = rng.integers(0, max(2, given.images // 8), given.images) * 2 + label
    print(f"{given.images:,} images, {given.replicates:,} replicates; processor seconds")
    loops = {}
    for name, function in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        loops[name] = given.replicates * baseline(label, logit, function, given.baseline_replicates)
        scaled = f"loop over scikit-learn, {name} (scaled from {given.baseline_replicates} replicates)"
        show(scaled, loops[name])
    # A warm-up, so that the first row does not pay for imports and page faults.
    cluster_bootstrap("auroc", label[:1000], logit[:1000], each_its_own[:1000])
    for metric, clusters, options, note in (
        ("auroc", each_its_own, {}, "exact, one image a cluster"),
        ("auroc", crops, {}, "exact, about 4 images a cluster"),
        ("auroc", each_its_own, {"n_bins": 4096}, "4096 bins, one image a cluster"),
        ("auroc", crops, {"n_bins": 4096}, "4096 bins, about 4 images a cluster"),
        ("average_precision", crops, {}, "exact, about 4 images a cluster"),
        ("tpr", each_its_own, {"threshold": 1.0}, "exact, one image a cluster"),
        ("tpr", crops, {"threshold": 1.0}, "exact, about 4 images a cluster"),
    ):
        arguments = (metric, label, logit, clusters)
        took = seconds(
            lambda arguments=arguments, options=options: cluster_bootstrap(
                *arguments, n_replicates=given.replicates, **options
            )
        )
        show(f"cluster_bootstrap {metric}, {note}", took, loops.get(metric))
    show("delong auroc, about 4 images a cluster", seconds(lambda: delong(label, logit, cluster=crops)), loops["auroc"])
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB")


if __name__ == "__main__":
    main()
