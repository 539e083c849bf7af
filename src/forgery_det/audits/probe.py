"""How well do a few features tell the label? Grouped cross-validation, out-of-fold logits, AUROC with an interval.

Folds keep each `source_id` whole and the classes balanced (stratified group folds), so crops of one photograph never
sit on both sides. The classifier weights the classes equally: otherwise the intercept of each fold would depend on its
share of real images, and pooling folds would mix that in. The interval is the cluster bootstrap over `source_id`s of
the out-of-fold logits; the classifier is not fitted again in each replicate, so its own variance is not in the
interval.

How far chance goes. Where there is nothing to learn, the value spreads more than the interval says and leans a little
below 0.5: what one fold holds more of, the training folds hold less of (Parker, Guenter and Bedo, "Stratification bias
in low signal microarray studies", BMC Bioinformatics 2007). Simulated with 30 to 100 images: mean 0.47 to 0.50 (0.44
without equal class weights), standard deviation 0.08 to 0.14, interval wholly above 0.6 in 0 to 2 % of the cases,
wholly below 0.4 in up to 9 %. So a value under 0.5 is no sign of a shortcut by itself, and the bias makes the check
milder, never stricter.

But contrary shortcuts in different groups push the value far down too. The two are told apart by permutation: labels
are shuffled between groups `N_PERMUTATIONS` times, which keeps the bias and removes the relation. Only an interval
wholly below 1 - limit with a value below that of every shuffle counts as an inverted shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from forgery_det.metrics.bootstrap import cluster_bootstrap
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.estimate import Estimate
from forgery_det.metrics.inputs import FloatArray, IntArray
from forgery_det.metrics.ranking import auroc

MIN_GROUPS = 5
"""Fewest `source_id`s of each class with which anything is said."""
N_FOLDS = 5
N_PERMUTATIONS = 19
"""19 shuffles and the data: below all of them has a probability of 1 / 20 under chance."""

GroupArray = npt.NDArray[np.str_]
MakeModel = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Probe:
    """Images with the logits of a classifier that never saw their group.

    Attributes:
        label_N: 0 or 1.
        logit_N: Out of fold, higher = generated.
        group_N: `source_id` of each image.
    """

    label_N: IntArray
    logit_N: FloatArray
    group_N: GroupArray

    def estimate(self, keep_N: npt.NDArray[np.bool_] | None, *, n_replicates: int, seed: int) -> Estimate:
        """Return the AUROC of the chosen images (None: all); missing with fewer than `MIN_GROUPS` groups a class."""
        keep_N = np.ones(len(self.label_N), bool) if keep_N is None else keep_N
        label_N, group_N = self.label_N[keep_N], self.group_N[keep_N]
        try:
            check_groups(label_N, group_N)
        except NotEstimableError as error:
            return Estimate.missing(len(label_N), str(error))
        return cluster_bootstrap("auroc", label_N, self.logit_N[keep_N], group_N, n_replicates=n_replicates, seed=seed)


def check_groups(label_N: IntArray, group_N: GroupArray) -> None:
    """Raise NotEstimableError unless each class comes from at least `MIN_GROUPS` groups."""
    counted = [len(np.unique(group_N[label_N == label])) for label in (0, 1)]
    if min(counted) < MIN_GROUPS:
        raise NotEstimableError(
            f"not estimable (n = {len(label_N)}: {counted[0]} source_ids of real and {counted[1]} of generated images, "
            f"{MIN_GROUPS} of each needed)"
        )


def run_probe(
    feature_NF: FloatArray, label_N: IntArray, group_N: GroupArray, make_model: MakeModel, seed: int
) -> Probe:
    """Fit on four fifths of the groups, predict the rest, five times.

    Args:
        feature_NF: One row an image; NaN is passed on to the model.
        label_N: 0 or 1.
        group_N: `source_id` of each image.
        make_model: Returns a fresh scikit-learn classifier with `decision_function` and balanced class weights.
        seed: Of the folds.

    Raises:
        NotEstimableError: A class has fewer than `MIN_GROUPS` groups, or a fold leaves one class only to learn from.
    """
    check_groups(label_N, group_N)
    logit_N = np.zeros(len(label_N))
    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
    # One thread: tables this small gain nothing from more, and sums then have one order.
    with threadpool_limits(limits=1):
        for train, held_out in folds.split(feature_NF, label_N, group_N):
            if len(np.unique(label_N[train])) < 2:
                raise NotEstimableError(
                    f"not estimable (n = {len(label_N)}: one source_id holds nearly all images of a class, so that the "
                    "other folds have none to learn from)"
                )
            if len(held_out):
                model = make_model().fit(feature_NF[train], label_N[train])
                logit_N[held_out] = model.decision_function(feature_NF[held_out])
    # Images with equal features tie exactly, whatever the last bit of a sum is.
    return Probe(label_N, np.round(logit_N, 9), group_N)


def is_inverted_shortcut(feature_NF: FloatArray, probe: Probe, make_model: MakeModel, seed: int) -> bool:
    """Return whether the AUROC is below that of all permutations of the labels between groups."""
    observed = auroc(probe.label_N, probe.logit_N)
    generator = np.random.default_rng(seed)
    for _ in range(N_PERMUTATIONS):
        label_N = shuffled_labels(probe.label_N, probe.group_N, generator)
        try:
            chance = run_probe(feature_NF, label_N, probe.group_N, make_model, seed)
        except NotEstimableError:
            return False
        if auroc(chance.label_N, chance.logit_N) <= observed:
            return False
    return True


def shuffled_labels(label_N: IntArray, group_N: GroupArray, generator: np.random.Generator) -> IntArray:
    """Shuffle the labels of one-class groups between them, and those of a mixed group within it.

    Example:
        >>> labels = shuffled_labels(np.array([0, 0, 1]), np.array(["a", "a", "b"]), np.random.default_rng(0))
        >>> bool(labels[0] == labels[1] != labels[2])
        True
    """
    _, group_code_N = np.unique(group_N, return_inverse=True)
    n_K = np.bincount(group_code_N)
    generated_K = np.bincount(group_code_N, weights=label_N)
    pure_K = (generated_K == 0) | (generated_K == n_K)
    new_K = generated_K > 0
    new_K[pure_K] = generator.permutation(new_K[pure_K])
    shuffled = new_K[group_code_N].astype(np.int64)
    mixed = np.flatnonzero(~pure_K[group_code_N])
    # Both sorted by group, one at random within it: the labels of a group are dealt to its shuffled members.
    in_order = mixed[np.argsort(group_code_N[mixed], kind="stable")]
    at_random = mixed[np.lexsort((generator.random(len(mixed)), group_code_N[mixed]))]
    shuffled[at_random] = label_N[in_order]
    return shuffled
