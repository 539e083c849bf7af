from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from forgery_det.audits.probe import N_PERMUTATIONS, is_inverted_shortcut, run_probe, shuffled_labels
from forgery_det.metrics.errors import NotEstimableError
from forgery_det.metrics.ranking import auroc


def model() -> LogisticRegression:
    return LogisticRegression(class_weight="balanced")


def data(n_groups: int, per_group: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_groups), per_group)
    label = group % 2
    feature = rng.normal(size=(len(group), 2)) + shift * label[:, None]
    return feature, label, np.array([f"g{number:03}" for number in group])


class Recorder:
    """A classifier that only writes down which rows it was given."""

    seen: list[tuple[set[float], set[float]]] = []  # noqa: RUF012 -- emptied by the test that uses it

    def fit(self, feature_NF: np.ndarray, label_N: np.ndarray) -> Recorder:
        self.trained = set(feature_NF[:, 0].tolist())
        return self

    def decision_function(self, feature_NF: np.ndarray) -> np.ndarray:
        self.seen.append((self.trained, set(feature_NF[:, 0].tolist())))
        return feature_NF[:, 0]


def test_every_image_is_predicted_once_by_a_model_that_never_saw_its_group() -> None:
    _, label, group = data(20, 3, 0.0, 0)
    feature = np.arange(60.0)[:, None]
    Recorder.seen.clear()
    probe = run_probe(feature, label, group, Recorder, seed=0)
    assert np.array_equal(probe.logit_N, feature[:, 0])
    held_out = [row for _, rows in Recorder.seen for row in rows]
    assert sorted(held_out) == list(range(60))
    for trained, predicted in Recorder.seen:
        assert {group[int(row)] for row in trained}.isdisjoint(group[int(row)] for row in predicted)


def test_the_auroc_is_that_of_a_known_shift() -> None:
    """Two normals one unit apart in each of two features: AUROC = Phi(sqrt(2) / sqrt(2)) = 0.8413."""
    feature, label, group = data(1000, 1, 1.0, 1)
    assert auroc(label, run_probe(feature, label, group, model, 0).logit_N) == pytest.approx(0.8413, abs=0.03)


@pytest.mark.slow
def test_nothing_to_learn_is_near_chance() -> None:
    values = []
    for seed in range(1000, 1030):
        feature, label, group = data(30, 2, 0.0, seed)
        values.append(auroc(label, run_probe(feature, label, group, model, seed).logit_N))
    # The mean is known to about 0.02; the module says 0.47 to 0.50.
    assert 0.43 < np.mean(values) < 0.54


def test_an_estimate_of_few_groups_is_missing() -> None:
    feature, label, group = data(20, 1, 1.0, 0)
    probe = run_probe(feature, label, group, model, 0)
    keep = np.arange(20) < 8
    found = probe.estimate(keep, n_replicates=50, seed=0)
    assert found.value is None
    assert found.note == ("not estimable (n = 8: 4 source_ids of real and 4 of generated images, 5 of each needed)")


def test_one_group_with_nearly_all_of_a_class_does_not_crash() -> None:
    feature, label, group = data(12, 1, 0.0, 0)
    try:
        run_probe(feature, label, group, model, 0)
    except NotEstimableError as error:
        pytest.fail(str(error))
    with pytest.raises(NotEstimableError, match="0 source_ids of real and 12 of generated"):
        run_probe(feature, np.ones(12, int), group, model, 0)


def contrary_groups(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of both classes; in half of them generated images are larger, in the other half smaller."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(10), 20)
    label = np.tile([0, 1], 100)
    feature = (2 * label - 1) * np.where(group % 2, 1, -1) + rng.normal(size=200) * 0.3
    return feature[:, None], label, np.array([f"g{number}" for number in group])


def test_contrary_shortcuts_are_told_from_chance() -> None:
    feature, label, group = contrary_groups(0)
    probe = run_probe(feature, label, group, model, 3)
    assert auroc(label, probe.logit_N) < 0.3
    assert is_inverted_shortcut(feature, probe, model, 0)


def test_chance_below_one_half_is_not_an_inverted_shortcut() -> None:
    feature, label, group = data(30, 1, 0.0, 2)
    found = []
    for seed in range(6):
        shuffled = np.random.default_rng(seed).permutation(label)
        probe = run_probe(feature, shuffled, group, model, 0)
        if auroc(shuffled, probe.logit_N) < 0.5:
            found.append(is_inverted_shortcut(feature, probe, model, seed))
    assert found
    assert sum(found) <= 1
    assert N_PERMUTATIONS == 19


def test_shuffling_keeps_groups_whole() -> None:
    label = np.array([0, 0, 0, 1, 1, 0, 1, 1])
    group = np.array(["a", "a", "b", "c", "c", "m", "m", "m"])
    generator = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        new = shuffled_labels(label, group, generator)
        assert new[0] == new[1]
        assert new[3] == new[4]
        assert new[[0, 2, 3]].sum() == 1
        assert new[5:].sum() == 2
        outcomes.add(tuple(new.tolist()))
    assert len(outcomes) == 9
