from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import decode_image, encode_image
from forgery_det.recipes.schema import parse_section
from forgery_det.safety.models.base import ModelContext
from forgery_det.safety.models.openai_chat import OpenAIChatModel, OpenAIChatModelParameters
from synth.chat_server import Answer, ChatServer, Fault
from synth.image_server import image_of, running_server
from synth.images import smooth_image

openai = pytest.importorskip("openai", reason="the extra `generate` is not installed")

KEY = "sk-secret-of-the-test"
PICTURE = encode_image(smooth_image(0, 96, 80), "jpeg", 90)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda _: Answer("A fox in snow.")) as running:
        yield running


def build(server: ChatServer, **changes: Any) -> OpenAIChatModel:
    given = {"model": "m", "base_url": server.base_url, "retries": 1, "timeout_s": 5.0} | changes
    parameters = parse_section(OpenAIChatModelParameters, given, "plan.yaml: models[0]")
    return OpenAIChatModel(parameters, ModelContext("served", "mllm", Path(), Path()))


def test_pictures_come_before_the_text(server: ChatServer) -> None:
    model = build(server, system="Be brief.", temperature=0.5, usd_per_million={"input": 2.0, "output": 5.0})
    answer = model.understand((PICTURE, PICTURE), "What is this?", seed=11)
    assert (answer.outcome, answer.kind, answer.text) == ("made", "text", "A fox in snow.")
    assert answer.provenance["cost_usd"] == pytest.approx((10 * 2 + 20 * 5) / 1e6)
    assert answer.provenance["model_version_returned"] == "m-2026-01-01"
    (body,) = server.bodies
    assert (body["seed"], body["temperature"]) == (11, 0.5)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    *pictures, text = user["content"]
    assert text == {"type": "text", "text": "What is this?"}
    for picture in pictures:
        head, _, data = picture["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        assert decode_image(b64decode(data)).image_HWC.shape == (80, 96, 3)
    assert len(pictures) == 2


def test_a_text_alone_is_sent_as_it_is(server: ChatServer) -> None:
    answer = build(server).understand((), "Describe a fox.", seed=1)
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "Describe a fox."}]
    assert answer.provenance["cost_usd"] is None  # no prices, no guess


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Answer("I'm sorry, but I can't help with that."), "refused"),
        (Answer(None, refusal="I will not."), "refused"),
        (Answer("", finish="content_filter"), "blocked"),
        (Fault(400, error={"message": "flagged", "code": "content_filter"}), "blocked"),
        (Answer("<think>Shall I?</think> A fox."), "made"),
        (Answer("A long text that was cut", finish="length"), "made"),
        (Answer(""), "failed"),
        (Fault(400, error={"message": "bad request"}), "failed"),
        (Fault(500), "failed"),
    ],
)
def test_what_is_said_becomes_an_outcome(reply: Answer | Fault, outcome: str) -> None:
    def say(_: Mapping[str, Any]) -> Answer | Fault:
        return reply

    with ChatServer(say) as server:
        answer = build(server).understand((), "x", seed=1)
    assert (answer.outcome, answer.kind) == (outcome, "text"), answer
    assert (answer.text is not None) == (outcome == "made")
    assert bool(answer.detail) == (outcome != "made")
    assert "Shall I?" not in (answer.text or "")


def test_faults_are_tried_again_after_the_time_that_is_asked_for() -> None:
    faults = (Fault(429, headers={"Retry-After": "0"}),)
    with ChatServer(lambda _: Answer("A fox."), faults) as server:
        assert build(server).understand((), "x", seed=1).text == "A fox."
        assert len(server.bodies) == 2


def test_a_wrong_key_stops_the_run_and_is_not_shown() -> None:
    def strict(_: Mapping[str, Any]) -> Fault:
        return Fault(401, error={"message": f"wrong key {KEY}"})

    with ChatServer(strict) as server, pytest.raises(SourceError, match=r"status 401.*\(model 'served'\)") as caught:
        build(server).understand((), "x", seed=1)
    assert KEY not in str(caught.value)


def test_failures_in_a_row_end_the_run() -> None:
    with ChatServer(lambda _: Fault(500)) as server:
        model = build(server, retries=0)
        for _ in range(4):
            assert model.understand((), "x", seed=1).outcome == "failed"
        with pytest.raises(SourceError, match="5 failures in a row"):
            model.understand((), "x", seed=1)


def test_an_unreadable_picture_is_not_sent(server: ChatServer) -> None:
    answer = build(server).understand((b"no picture",), "x", seed=1)
    assert answer.outcome == "failed"
    assert server.bodies == []


def test_a_server_that_draws_is_one_model(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = build(server)
    assert not reader.can_walk("generation")
    with running_server() as images:
        keys = {"base_url": f"{images.address}/v1", "usd_per_image": 0.01, "send_seed": True, "size": "64x64"}
        model = build(server, images=keys)
        assert model.can_walk("understanding_generation")
        answer = model.generate("a fox", seed=5)
        assert (answer.outcome, answer.image) == ("made", image_of("a fox"))
        assert answer.provenance["cost_usd"] == 0.01
        (body,) = images.bodies
        assert (body["model"], body["seed"], body["size"]) == ("m", 5, "64x64")
        assert images.headers[0]["authorization"] == f"Bearer {KEY}"
        # A server of one's own needs no key, for neither function.
        monkeypatch.delenv("OPENAI_API_KEY")
        keyless = build(server, images=keys)
        assert keyless.generate("a fox", seed=5).outcome == "made"
        assert keyless.understand((), "x", seed=5).outcome == "made"
    assert model.identity() != reader.identity()
    assert build(server, images=keys, timeout_s=9.0).identity() == model.identity()


def test_keys_that_do_not_fit_are_errors(server: ChatServer) -> None:
    with pytest.raises(ConfigError, match="Expected the plan's `budget`"):
        build(server, budget={"requests": 3})
    with pytest.raises(ConfigError, match="Unknown key 'sizes'"):
        build(server, images={"sizes": "64x64"})
    with pytest.raises(ConfigError, match="with input and output"):
        build(server, usd_per_million={"input": 1.0})
