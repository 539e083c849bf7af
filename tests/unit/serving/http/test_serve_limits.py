"""Each limit answers its status, gives its places back, and never reads or waits more than it must."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

from forgery_det.serving.http.app import create_app
from forgery_det.serving.http.service import Drain
from forgery_det.serving.http.settings import Limits, ServeSettings
from forgery_det.serving.predictor import Predictor
from synth.service import FORM_TYPE, Answer, form, plain_png, post, running

JSON = "application/json"
GOOD = form([("a.png", plain_png(255))])


class Gated(Predictor):
    """Waits in the model until it is let go."""

    def __init__(self, bundle: Any) -> None:
        super().__init__(bundle, threads=1)
        self.gate = threading.Event()
        self.passes = 0

    def logits(self, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.passes += 1
        assert self.gate.wait(20)
        return super().logits(views)


def once(predictor: Predictor, limits: Limits, *arguments: Any, **options: Any) -> Answer:
    """One request to a fresh application, which must be empty afterwards."""

    async def main() -> Answer:
        app = create_app(predictor, ServeSettings(limits))
        async with running(app):
            answer = await post(app, *arguments, **options)
            after = await post(app, [GOOD], announce=len(GOOD))
            assert after.status == 200 or limits.max_request_bytes < len(GOOD) or limits.max_image_bytes < 100
            admission = app.state.service.admission
            assert (admission.requests, admission.images, admission.body_bytes) == (0, 0, 0)
            return answer

    return asyncio.run(main())


@pytest.mark.parametrize("announce", [None, 5000])
def test_too_many_bytes_are_refused_while_they_arrive(predictor: Predictor, announce: int | None) -> None:
    chunks: list[bytes | float] = [bytes(1000)] * 4 + [60.0]  # the pause would be met by a service that reads on
    answer = once(predictor, Limits(max_request_bytes=3000), chunks, content_type=JSON, announce=announce)
    assert (answer.status, answer.code) == (413, "request_too_large")
    assert answer.headers["connection"] == "close"


def test_an_image_with_too_many_bytes_fails_alone_or_as_413(predictor: Predictor) -> None:
    limits = Limits(max_image_bytes=2000)
    large, small = ("large.png", bytes(5000)), ("small.png", plain_png(0))
    both = once(predictor, limits, [form([large, small])])
    assert [one["error"] and one["error"]["reason"] for one in both.json["images"]] == ["too_many_bytes", None]
    alone = once(predictor, limits, [form([large])])
    assert (alone.status, alone.code) == (413, "image_too_large")
    encoded = json.dumps({"images": [{"base64": "AAAA" * 1000}]}).encode()
    assert once(predictor, limits, [encoded], content_type=JSON).status == 413


@pytest.mark.parametrize("kind", [FORM_TYPE, JSON])
def test_too_many_images(predictor: Predictor, kind: str) -> None:
    bodies = {FORM_TYPE: form([("x", b"x")] * 3), JSON: json.dumps({"images": [{"base64": ""}] * 3}).encode()}
    answer = once(predictor, Limits(max_images=2), [bodies[kind]], content_type=kind)
    assert (answer.status, answer.code) == (413, "too_many_images")


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", FORM_TYPE, 400, "malformed_body"),
        (b"--edge--\r\n", FORM_TYPE, 422, "invalid_request"),
        (GOOD[:-20], FORM_TYPE, 400, "malformed_body"),
        (GOOD, "multipart/form-data", 400, "malformed_body"),
        (GOOD, "multipart/form-data; boundary=other", 400, "malformed_body"),
        (GOOD, f"multipart/form-data; boundary={'x' * 5000}", 400, "malformed_body"),
        (b"--edge\r\n\r\nx\r\n--edge--", FORM_TYPE, 422, "invalid_request"),
        (GOOD.replace(b"files", b"other"), FORM_TYPE, 422, "invalid_request"),
        (b"--edge\r\n" + b"a: b\r\n" * 5000 + b"\r\n", FORM_TYPE, 400, "malformed_body"),
        (b"--edge\r\n" + b"a" * 100_000, FORM_TYPE, 400, "malformed_body"),
        (b"{", JSON, 400, "malformed_body"),
        (b"\xff\xfe", JSON, 400, "malformed_body"),
        (b"[" * 100_000, JSON, 400, "malformed_body"),
        (b"[]", JSON, 422, "invalid_request"),
        (b'{"images": []}', JSON, 422, "invalid_request"),
        (b'{"images": [{}]}', JSON, 422, "invalid_request"),
        (b'{"images": [{"base64": "", "url": ""}]}', JSON, 422, "invalid_request"),
        (b'{"images": [{"base64": 5}]}', JSON, 422, "invalid_request"),
        (b'{"images": [{"base64": ""}], "more": 1}', JSON, 422, "invalid_request"),
        (GOOD, "image/png", 415, "unsupported_media_type"),
        (GOOD, "", 415, "unsupported_media_type"),
    ],
)
def test_bodies_that_break_their_form(predictor: Predictor, body: bytes, kind: str, status: int, code: str) -> None:
    answer = once(predictor, Limits(), [body], content_type=kind)
    assert (answer.status, answer.code) == (status, code)
    assert len(answer.body) < 1000


@pytest.mark.parametrize(("slow", "kind"), [(False, FORM_TYPE), (True, FORM_TYPE), (False, JSON)])
def test_a_refused_body_is_not_kept_while_the_answer_lingers(predictor: Predictor, slow: bool, kind: str) -> None:
    opening = form([("large.png", b"")])[:-12] if kind == FORM_TYPE else b"{"
    held: list[int] = []

    def measure() -> None:
        gc.disable()  # what a collector would find later is held now
        held.append(tracemalloc.get_traced_memory()[0])

    limits = Limits(max_request_bytes=100 * 2**20 if slow else 8 * 2**20, upload_timeout_s=0.5 if slow else 30)
    chunks = [
        opening,
        *map(bytes, [2**20] * 7),
        *([1.0] if slow else []),
        bytes(2**20),
        bytes(2**20),
        measure,
        b"x",
        60.0,
    ]
    tracemalloc.start()
    try:
        answer = once(predictor, limits, chunks, content_type=kind)
    finally:
        tracemalloc.stop()
        gc.enable()
    assert answer.status == (408 if slow else 413)
    assert held
    assert held[0] < 4 * 2**20


def test_slow_uploads_time_out(predictor: Predictor) -> None:
    drops: list[bytes | float] = [GOOD[:30]] + [0.03, b"-"] * 100
    answer = once(predictor, Limits(upload_timeout_s=0.1), drops)
    assert (answer.status, answer.code) == (408, "upload_too_slow")


def test_full_queues_and_no_buffer_refuse_at_the_door(bundle: object) -> None:
    model = Gated(bundle)
    limits = Limits(max_requests=2, max_buffered_bytes=2 * len(GOOD) + 50)

    async def main() -> tuple[Answer, Answer, list[Answer]]:
        app = create_app(model, ServeSettings(limits))
        async with running(app):
            first = asyncio.ensure_future(post(app, [GOOD]))
            while not model.passes:
                await asyncio.sleep(0.005)
            second = asyncio.ensure_future(post(app, [GOOD[:99], 0.2, GOOD[99:]]))
            await asyncio.sleep(0.05)
            third = await post(app, [60.0, GOOD])  # refused before its body is asked for
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            large = await post(app, [form([("b.png", bytes(2 * len(GOOD)))])])
            model.gate.set()
            return third, large, [await first, await post(app, [GOOD])]

    third, large, good = asyncio.run(asyncio.wait_for(main(), 20))
    assert (third.status, third.code) == (429, "queue_full")
    assert int(third.headers["retry-after"]) >= 1
    assert (large.status, large.code) == (503, "out_of_buffer")
    assert [one.status for one in good] == [200, 200]


def test_a_late_answer_is_504_and_a_gone_client_is_forgotten(bundle: object) -> None:
    model = Gated(bundle)

    async def main() -> tuple[Answer, Answer, int, Any]:
        app = create_app(model, ServeSettings(Limits(request_timeout_s=0.2)))
        async with running(app):
            late = await post(app, [GOOD])
            gone = await post(app, [GOOD], leave_after_s=0.02)
            admission = app.state.service.admission
            held = (admission.requests, admission.images, admission.body_bytes)
            model.gate.set()
            for _ in range(100):
                await asyncio.sleep(0.01)
                if app.state.service.room.used_bytes == 0:
                    break
            good = await post(app, [GOOD])
            assert app.state.service.room.used_bytes == 0
            return late, gone, good.status, held

    late, gone, good, held = asyncio.run(asyncio.wait_for(main(), 20))
    assert (late.status, late.code) == (504, "timeout")
    assert gone.status == 0
    assert good == 200
    assert held == (0, 0, 0)
    assert model.passes == 2  # the late one and the good one; the one whose client left never reached the model


def test_a_service_that_ends_refuses_new_work_and_finishes_old(bundle: object) -> None:
    model, drain = Gated(bundle), Drain()

    async def main() -> tuple[Answer, Answer]:
        app = create_app(model, drain=drain)
        async with running(app):
            old = asyncio.ensure_future(post(app, [GOOD]))
            while not model.passes:
                await asyncio.sleep(0.005)
            drain.is_on = True
            new = await post(app, [GOOD])
            model.gate.set()
            return await old, new

    old, new = asyncio.run(asyncio.wait_for(main(), 20))
    assert old.status == 200
    assert (new.status, new.code) == (503, "shutting_down")


def test_requests_share_passes(bundle: object) -> None:
    model = Gated(bundle)

    async def main() -> list[Answer]:
        app = create_app(model, ServeSettings(Limits(batch_size=16)))
        async with running(app):
            first = asyncio.ensure_future(post(app, [GOOD]))
            while not model.passes:
                await asyncio.sleep(0.005)
            others = [asyncio.ensure_future(post(app, [form([("x", plain_png(level))])])) for level in range(100, 108)]
            while app.state.service._batcher.waiting < 8:
                await asyncio.sleep(0.005)
            model.gate.set()
            await first
            return [await one for one in others]

    answers = asyncio.run(asyncio.wait_for(main(), 20))
    assert model.passes == 2
    found = [answer.json["images"][0] for answer in answers]
    assert {one["timings"]["batch"] for one in found} == {8}
    np.testing.assert_allclose(
        [one["logit"] for one in found], [10 * (n / 255 - 0.5) for n in range(100, 108)], atol=1e-4
    )
