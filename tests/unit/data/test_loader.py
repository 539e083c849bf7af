from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.types import _Stateful
from torch.utils.data import Dataset

from forgery_det.data.loader import ResumableLoader
from forgery_det.data.sampling import EpochSampler


class Keys(Dataset):
    """Gives back what it is asked for."""

    def __len__(self):
        return 20

    def __getitem__(self, draw):
        return tuple(draw)


def loader(num_workers: int = 0) -> ResumableLoader:
    sampler = EpochSampler([0, 1] * 10, ["a"] * 20, "natural", seed=1)
    return ResumableLoader(
        Keys(), batch_size=3, sampler=sampler, num_workers=num_workers, collate_fn=list, generator=torch.Generator()
    )


def epoch(resumable: ResumableLoader, number: int) -> list[list[tuple[int, ...]]]:
    resumable.sampler.set_epoch(number)
    return list(resumable)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_goes_on_with_the_batch_after_the_last(num_workers):
    expected = epoch(loader(), 4)
    stopped = loader(num_workers)
    stopped.sampler.set_epoch(4)
    batches = iter(stopped)
    before = [next(batches) for _ in range(3)]
    state = stopped.state_dict()
    del batches
    resumed = loader(num_workers)
    resumed.load_state_dict(state)
    after = epoch(resumed, 4)
    assert before + after == expected
    assert epoch(resumed, 5) == epoch(loader(), 5)


def test_the_epoch_counts_that_is_set_after_iter():
    late = loader(2)
    batches = iter(late)
    late.sampler.set_epoch(7)
    assert next(batches) == epoch(loader(), 7)[0]
    del batches


def test_state_counts_on_after_a_second_stop():
    resumed = loader()
    resumed.load_state_dict({"epoch": 0, "batches": 2})
    assert resumed.state_dict() == {"epoch": 0, "batches": 2}
    batches = iter(resumed)
    next(batches)
    assert resumed.state_dict() == {"epoch": 0, "batches": 3}


def test_a_finished_epoch_is_not_resumed():
    finished = loader()
    list(finished)
    resumed = loader()
    resumed.load_state_dict(finished.state_dict())
    assert epoch(resumed, 0) == epoch(loader(), 0)


def test_lightning_sees_a_stateful_loader():
    assert isinstance(loader(), _Stateful)


def test_another_sampler_makes_it_a_plain_loader():
    plain = ResumableLoader([1, 2, 3], batch_size=2)
    plain.load_state_dict({"epoch": 0, "batches": 1})
    assert [batch.tolist() for batch in plain] == [[1, 2], [3]]
