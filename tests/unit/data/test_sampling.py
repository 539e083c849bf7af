from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.data.sampling import SAMPLINGS, EpochSampler

LABEL = [0] * 90 + [1] * 10
SOURCE = ["a"] * 60 + ["b"] * 30 + ["x"] * 8 + ["y"] * 2


def rows(sampler: EpochSampler) -> list[int]:
    return [draw.row for draw in sampler]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_order_is_a_function_of_seed_and_epoch(sampling):
    def order(seed, epoch):
        sampler = EpochSampler(LABEL, SOURCE, sampling, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 4) == order(1, 4)
    assert [draw.row for draw in order(1, 4)] != [draw.row for draw in order(1, 5)]
    assert [draw.row for draw in order(1, 4)] != [draw.row for draw in order(2, 4)]
    assert [draw.position for draw in order(1, 4)] == list(range(100))
    assert {draw.epoch for draw in order(1, 4)} == {4}


def test_natural_shows_every_image_once():
    assert sorted(rows(EpochSampler(LABEL, SOURCE, "natural"))) == list(range(100))


def test_class_balanced_halves_the_draws_and_repeats_whole_passes():
    drawn = Counter(rows(EpochSampler(LABEL, SOURCE, "class_balanced")))
    assert sum(count for row, count in drawn.items() if LABEL[row]) == 50
    assert {drawn[row] for row in range(90, 100)} == {5}
    assert {count for row, count in drawn.items() if not LABEL[row]} == {1}


def test_source_balanced_gives_each_source_of_a_label_the_same():
    drawn = Counter(SOURCE[row] for row in rows(EpochSampler(LABEL, SOURCE, "source_balanced")))
    assert drawn == {"a": 25, "b": 25, "x": 25, "y": 25}


def test_every_image_of_the_large_class_comes_within_a_few_epochs():
    sampler, seen = EpochSampler(LABEL, SOURCE, "class_balanced"), set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        seen |= set(rows(sampler))
    assert seen == set(range(100))


@pytest.mark.parametrize("n", [2, 3, 7, 101])
def test_there_are_as_many_draws_as_rows(n):
    label = [k % 2 for k in range(n)]
    sampler = EpochSampler(label, [str(k % 3) for k in range(n)], "source_balanced")
    assert len(list(sampler)) == len(sampler) == n


def test_the_order_mixes_the_classes():
    first_half = rows(EpochSampler(LABEL, SOURCE, "class_balanced"))[:50]
    assert 15 < sum(LABEL[row] for row in first_half) < 35


def test_resume_goes_on_after_the_last_draw_once():
    whole = EpochSampler(LABEL, SOURCE, "class_balanced", seed=3)
    whole.set_epoch(2)
    expected = list(whole)
    resumed = EpochSampler(LABEL, SOURCE, "class_balanced", seed=3)
    resumed.resume(2, 40)
    resumed.set_epoch(2)
    assert list(resumed) == expected[40:]
    assert list(resumed) == expected


def test_resume_is_forgotten_in_another_epoch():
    sampler = EpochSampler(LABEL, SOURCE, "natural")
    sampler.resume(2, 40)
    sampler.set_epoch(3)
    assert len(list(sampler)) == 100


def test_no_global_random_number_is_used():
    np.random.seed(0)  # noqa: NPY002 - the global generator is what is watched
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    list(EpochSampler(LABEL, SOURCE, "class_balanced"))
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize(("label", "missing"), [([0, 0], "generated"), ([1, 1], "real")])
def test_one_class_alone_cannot_be_balanced(label, missing):
    with pytest.raises(ConfigError, match=f"Expected real and generated images to balance, got no {missing} one"):
        EpochSampler(label, ["a", "a"], "class_balanced")


def test_wrong_use_is_explained():
    with pytest.raises(ConfigError, match="Unknown sampling 'clas_balanced': did you mean 'class_balanced'"):
        EpochSampler(LABEL, SOURCE, "clas_balanced")
    with pytest.raises(ConfigError, match="Expected at least one image to sample from, got none"):
        EpochSampler([], [], "natural")
