"""Places: counted, refused with what mends it, and always given back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forgery_det.core.errors import ConfigError
from forgery_det.serving.http.admission import MOST_RETRY_S, Admission, ByteRoom
from forgery_det.serving.http.problems import RefusalError
from forgery_det.serving.http.settings import FetchRules, Limits


def test_requests_above_the_limit_are_told_to_come_back() -> None:
    admission = Admission(Limits(max_requests=1), lambda: 0.5)
    with admission.request(), admission.queued(7), pytest.raises(RefusalError) as refusal, admission.request():
        pass
    assert (refusal.value.status, refusal.value.retry_after_s) == (429, 4)
    assert (admission.requests, admission.images) == (0, 0)


def test_a_full_image_queue_refuses_before_the_body_is_read() -> None:
    admission = Admission(Limits(max_queued_images=2), lambda: 1e9)
    with admission.queued(2):
        with pytest.raises(RefusalError, match="images in flight") as refusal, admission.request():
            pass
        with pytest.raises(RefusalError) as late, admission.queued(1):
            pass
    assert refusal.value.retry_after_s == late.value.retry_after_s == MOST_RETRY_S


def test_a_lonely_request_with_many_images_is_let_in() -> None:
    admission = Admission(Limits(max_queued_images=2), lambda: 1.0)
    with admission.queued(5):
        assert admission.images == 5


def test_body_bytes_are_bounded_and_given_back() -> None:
    admission = Admission(Limits(max_buffered_bytes=10), lambda: 1.0)
    with admission.buffer() as take:
        take(6)
        assert admission.body_bytes == 6
        with pytest.raises(RefusalError) as refusal:
            take(5)
    assert (refusal.value.status, refusal.value.code) == (503, "out_of_buffer")
    assert admission.body_bytes == 0


@settings(max_examples=30, deadline=None, database=None)
@given(st.lists(st.tuples(st.integers(1, 15), st.booleans(), st.integers(0, 3)), min_size=1, max_size=12))
def test_room_is_never_exceeded_and_never_lost(guests: list[tuple[int, bool, int]]) -> None:
    async def main() -> None:
        room = ByteRoom(10)
        most = 0

        async def guest(wish: int, stay: int) -> None:
            nonlocal most
            taken = await room.enter(wish)
            most = max(most, room.used_bytes)
            try:
                for _ in range(stay):
                    await asyncio.sleep(0)
            finally:
                room.leave(taken)

        tasks = [asyncio.ensure_future(guest(wish, stay)) for wish, _, stay in guests]
        await asyncio.sleep(0)
        for task, (_, leaves, _) in zip(tasks, guests, strict=True):
            if leaves:
                task.cancel()
                await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert most <= 10
        assert room.used_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize("name", ["max_request_bytes", "request_timeout_s", "batch_size"])
def test_limits_below_their_bounds_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^Expected `{name}` above 0, got -1\.$"):
        Limits(**{name: -1})


@pytest.mark.parametrize("host", ["", "https://a.org", "a.org/x", "*.*.org", "a*.org", "me@a.org"])
def test_strange_host_patterns_are_refused_at_the_start(host: str) -> None:
    with pytest.raises(ConfigError, match="Expected a host such as"):
        FetchRules(hosts=(host,))


def test_host_patterns_that_are_meant() -> None:
    assert FetchRules(hosts=("*", "*.example.org", "a.example.org", "a.example.org:8443")).max_redirects == 3
