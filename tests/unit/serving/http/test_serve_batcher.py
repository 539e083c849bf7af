"""The batcher: images of all requests share passes, and nothing an image does ends the task."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from forgery_det.serving.http.batcher import Batcher, ModelFailureError


class Means:
    """A model that gives the mean level, remembers its batches, and fails on some levels."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def __call__(self, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.gate.wait(10)
        self.threads.add(threading.get_ident())
        level_B = views.reshape(len(views), -1).mean(1)
        self.batches.append(level_B.astype(int).tolist())
        if 66 in level_B:
            raise RuntimeError("a poisoned image")
        return np.where(level_B == 77, np.nan, level_B), level_B / 255


def image(level: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def batcher(model: Means, batch_size: int = 4, wait_s: float = 0.0) -> Batcher:
    return Batcher(model, batch_size=batch_size, wait_s=wait_s)


def test_images_that_gather_while_the_model_works_share_a_pass() -> None:
    model = Means()

    async def main() -> list[float]:
        async with batcher(model) as one:
            model.gate.clear()
            first = asyncio.ensure_future(one.submit(image(1)))
            await asyncio.sleep(0.02)
            others = [asyncio.ensure_future(one.submit(image(level))) for level in range(2, 9)]
            await asyncio.sleep(0.02)
            assert one.waiting == 7
            assert one.stuck_s() > 0
            model.gate.set()
            return [(await task).logit for task in [first, *others]]

    assert asyncio.run(main()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert model.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]
    assert len(model.threads) == 1


def test_a_batch_waits_for_expected_images_only() -> None:
    model = Means()

    async def main() -> None:
        async with batcher(model, wait_s=30.0) as one:
            await one.submit(image(1))  # nobody is expected: no waiting
            with one.expect():
                first = asyncio.ensure_future(one.submit(image(2)))
                await asyncio.sleep(0.02)
                assert not first.done()
            second = asyncio.ensure_future(one.submit(image(3)))
            await asyncio.gather(first, second)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert model.batches == [[1], [2, 3]]


def test_only_one_shape_shares_a_pass_and_order_is_kept() -> None:
    model = Means()

    async def main() -> list[float]:
        async with batcher(model) as one:
            model.gate.clear()
            tasks = [asyncio.ensure_future(one.submit(image(9)))]
            await asyncio.sleep(0.02)
            tasks += [asyncio.ensure_future(one.submit(image(n, side=4 + n % 2))) for n in range(6)]
            await asyncio.sleep(0.02)
            model.gate.set()
            return [(await task).logit for task in tasks]

    assert asyncio.run(main()) == [9, 0, 1, 2, 3, 4, 5]
    assert model.batches == [[9], [0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("poison", [66, 77])
def test_a_poisoned_image_fails_alone(poison: int) -> None:
    model = Means()

    async def main() -> list[object]:
        async with batcher(model) as one:
            model.gate.clear()
            warm = asyncio.ensure_future(one.submit(image(1)))
            await asyncio.sleep(0.02)
            tasks = [asyncio.ensure_future(one.submit(image(level))) for level in (10, poison, 30)]
            await asyncio.sleep(0.02)
            model.gate.set()
            await warm
            found = await asyncio.gather(*tasks, return_exceptions=True)
            after = await one.submit(image(40))
            return [*found, after]

    good, bad, other, after = asyncio.run(main())
    assert (good.logit, other.logit, after.logit) == (10, 30, 40)  # type: ignore[attr-defined]
    assert isinstance(bad, ModelFailureError)


def test_who_gave_up_is_skipped() -> None:
    model = Means()

    async def main() -> None:
        async with batcher(model) as one:
            model.gate.clear()
            tasks = [asyncio.ensure_future(one.submit(image(1)))]
            await asyncio.sleep(0.02)
            tasks += [asyncio.ensure_future(one.submit(image(level))) for level in (2, 3, 4)]
            await asyncio.sleep(0.02)
            tasks[2].cancel()
            model.gate.set()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert model.batches == [[1], [2, 4]]


def test_an_ended_batcher_says_so_and_frees_who_waits() -> None:
    model = Means()

    async def main() -> None:
        one = batcher(model)
        async with one:
            model.gate.clear()
            first = asyncio.ensure_future(one.submit(image(1)))
            await asyncio.sleep(0.02)
            second = asyncio.ensure_future(one.submit(image(2)))
            await asyncio.sleep(0.02)
            first.cancel()
            model.gate.set()
        assert one.stuck_s() == float("inf")
        with pytest.raises(asyncio.CancelledError):
            await second

    asyncio.run(main())
