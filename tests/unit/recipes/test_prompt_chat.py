from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.recipes.prompt_sets import ContentImage
from forgery_det.recipes.prompting.base import TextFailure, TextModelDownError, TextReply, TextRequest
from forgery_det.recipes.prompting.chat import ChatBudget, OpenAIChat, OpenAIChatParameters
from synth.chat_server import Answer, ChatServer, Fault, longer
from synth.images import smooth_image

openai = pytest.importorskip("openai", reason="the extra `generate` is not installed")

KEY = "sk-secret-of-the-test"
FOX = TextRequest("Make it longer.", "a fox", 7)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    # The package's own backoff, made short: what it waits for is its business, that it tries again is ours.
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def _model(server: ChatServer, **changes: Any) -> OpenAIChat:
    given = {"model": "m", "base_url": server.base_url, "retries": 2, "timeout_s": 5.0, "concurrency": 1} | changes
    return OpenAIChat(OpenAIChatParameters(**given), Path())


def _one(model: OpenAIChat, request: TextRequest = FOX) -> TextReply | TextFailure:
    ((asked, reply),) = model.run([request])
    assert asked == request
    return reply


def test_the_request_holds_all_that_decides_the_text(server: ChatServer) -> None:
    reply = _one(_model(server, temperature=0.5, max_tokens=99, extra={"top_k": 3}))
    assert reply == TextReply(
        text="a fox standing in deep snow under a grey sky, seen from the side",
        finish="stop",
        model_version="m-2026-01-01",
        response_id="chatcmpl-1",
        usage={"prompt_tokens": 10, "completion_tokens": 20},
    )
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Make it longer."}, {"role": "user", "content": "a fox"}],
        "max_tokens": 99,
        "temperature": 0.5,
        "seed": 7,
        "top_k": 3,
    }
    assert server.keys == [f"Bearer {KEY}"]


def test_an_image_is_sent_as_png_no_larger_than_asked_for(server: ChatServer, tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(encode_image(smooth_image(0, 96, 80), "webp", 90))
    image = ContentImage("a", "c", "s", "0" * 64, path)
    request = TextRequest("Describe.", "", 0, image)
    assert isinstance(_one(_model(server, max_image_side_px=48, send_seed=False), request), TextReply)
    (part,) = server.bodies[0]["messages"][-1]["content"]
    prefix, _, data = part["image_url"]["url"].partition(",")
    assert prefix == "data:image/png;base64"
    decoded = decode_image(b64decode(data))
    assert decoded.image_HWC.shape == (40, 48, 3)
    assert "seed" not in server.bodies[0]
    path.unlink()
    assert _one(_model(server), request).reason == "expansion_failed"  # type: ignore[union-attr]
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, {"Retry-After": "0.01"}),
        Fault(429),
        Fault(500),
        Fault(503, {"Retry-After-Ms": "5"}),
        Fault(truncated=True),
        Fault(half_json=True),
    ],
    ids=["429 with Retry-After", "429 without", "500", "503", "truncated body", "half a body"],
)
def test_faults_are_met_with_another_try(fault: Fault) -> None:
    with ChatServer(faults=(fault, fault)) as server:
        reply = _one(_model(server))
        assert isinstance(reply, TextReply)
        assert len(server.bodies) == 3


def test_a_server_that_hangs_is_asked_again() -> None:
    with ChatServer(faults=(Fault(hang_s=30.0),)) as server:
        assert isinstance(_one(_model(server, timeout_s=0.2)), TextReply)
        assert len(server.bodies) == 2


def test_after_its_retries_a_request_has_failed_and_names_the_cause() -> None:
    with ChatServer(lambda _body: Fault(500)) as server:
        failed = _one(_model(server))
        assert isinstance(failed, TextFailure)
        assert failed.reason == "expansion_failed"
        assert failed.detail.startswith("Expected an answer, got status 500: ")
        assert "the server is unwell" in failed.detail
        assert len(server.bodies) == 3
    with ChatServer(lambda _body: Fault(half_json=True)) as server:
        failed = _one(_model(server))
        assert isinstance(failed, TextFailure)
        assert failed.detail.startswith("Expected an answer in JSON, got ")
        assert len(server.bodies) == 3


def test_a_server_that_is_down_ends_the_run_early() -> None:
    requests = [TextRequest("i", f"a fox {index}", 0) for index in range(20)]
    with ChatServer(lambda _body: Fault(500)) as server:
        with pytest.raises(
            TextModelDownError, match="5 requests in a row failed, the last one with: Expected an answer"
        ):
            list(_model(server, retries=0).run(requests))
        assert len(server.bodies) < 10


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_ends_the_run_at_once_and_the_key_is_not_repeated(status: int) -> None:
    fault = Fault(status, error={"message": f"no good: {KEY}"})
    with ChatServer(lambda _body: fault) as server:
        with pytest.raises(TextModelDownError, match=rf"status {status}: .*\[key\]") as caught:
            _one(_model(server))
        assert KEY not in str(caught.value)
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer("no", refusal="I will not."), ("no", "stop", "I will not.")),
        (Answer(None, finish="content_filter"), ("", "content_filter", None)),
        (Answer("cut", finish="length"), ("cut", "length", None)),
        (Answer("", choices=False), ("", "", None)),
    ],
)
def test_what_the_server_says_of_its_answer_is_kept(answer: Answer, expected: tuple[Any, ...]) -> None:
    with ChatServer(lambda _body: answer) as server:
        reply = _one(_model(server))
    assert isinstance(reply, TextReply)
    assert (reply.text, reply.finish, reply.refusal) == expected


def test_a_prompt_that_the_filter_rejects_is_a_refusal_not_a_failure() -> None:
    fault = Fault(400, error={"message": "not this", "code": "content_filter"})
    with ChatServer(lambda _body: fault) as server:
        reply = _one(_model(server))
    assert isinstance(reply, TextReply)
    assert reply.finish == "content_filter"
    with ChatServer(lambda _body: Fault(400, error={"message": "too long"})) as server:
        assert isinstance(_one(_model(server)), TextFailure)


def test_budgets_stop_a_run_cleanly(server: ChatServer) -> None:
    requests = [TextRequest("i", f"a fox {index}", 0) for index in range(5)]
    replies = [reply for _, reply in _model(server, budget=ChatBudget(requests=2)).run(requests)]
    assert [isinstance(reply, TextReply) for reply in replies].count(True) == 2
    assert {reply.reason for reply in replies if isinstance(reply, TextFailure)} == {"expansion_budget"}
    assert len(server.bodies) == 2
    # An answer costs 10 x 1 + 20 x 2 = 50 USD here: the second one meets the limit.
    priced = _model(server, budget=ChatBudget(usd=90.0), usd_per_million={"input": 1e6, "output": 2e6})
    replies = [reply for _, reply in priced.run(requests)]
    assert [isinstance(reply, TextReply) for reply in replies].count(True) == 2
    with pytest.raises(
        ConfigError, match=r"Expected `usd_per_million` with input and output where `budget.usd` is given"
    ):
        OpenAIChatParameters("m", budget=ChatBudget(usd=1.0))


def test_requests_are_made_side_by_side_and_no_more_than_allowed() -> None:
    import threading

    together = threading.Barrier(3, timeout=10)

    def answer(body: Any) -> Answer:
        together.wait()  # passes only if three requests are there at once
        return longer(body)

    requests = [TextRequest("i", f"a fox {index}", 0) for index in range(3)]
    with ChatServer(answer) as server:
        model = _model(server, concurrency=3)
        replies = dict(model.run(requests))
    assert all(isinstance(reply, TextReply) for reply in replies.values())
    assert set(replies) == set(requests)


def test_the_address_and_the_budget_do_not_change_what_was_asked() -> None:
    def key(**changes: Any) -> str:
        return FOX.key(OpenAIChat(OpenAIChatParameters(**{"model": "m"} | changes), Path()).identity())

    assert key() == key(base_url="http://127.0.0.1:1/v1", concurrency=9, budget=ChatBudget(3), retries=0)
    assert len({key(), key(model="n"), key(temperature=0.1), key(max_tokens=9), key(extra={"a": 1})}) == 5


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, server: ChatServer) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(
        TextModelDownError, match="Expected the key in the environment variable OPENAI_API_KEY, got none"
    ):
        _one(OpenAIChat(OpenAIChatParameters("m"), Path()))
    assert isinstance(_one(_model(server)), TextReply)  # a server of one's own may want none
