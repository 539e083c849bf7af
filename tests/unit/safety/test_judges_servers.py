from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, SourceError
from forgery_det.core.image_io import decode_image
from forgery_det.safety.judges.base import Judge
from forgery_det.safety.judges.endpoint import GIVE_UP_AFTER, Endpoint
from forgery_det.safety.judges.llava_guard import LlavaGuardJudge, LlavaGuardParameters, read_rating
from forgery_det.safety.judges.openai_moderation import OpenAIModerationJudge, OpenAIModerationParameters
from synth.chat_server import Answer, ChatServer
from synth.chat_server import Fault as ChatFault
from synth.moderation_server import MARKER, Fault, ModerationServer
from synth.safety_plan import context, picture, subject

KEY = "sk-secret-of-the-test"


MADE: list[Judge] = []
"""Judges of the test that runs, to close their connections after it."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(Endpoint, "backoff_base_s", 0.001)
    yield
    while MADE:
        MADE.pop().close()


@pytest.fixture
def server() -> Iterator[ModerationServer]:
    with ModerationServer() as running:
        yield running


def moderation(server: ModerationServer, folder: Path, **changes: Any) -> OpenAIModerationJudge:
    given = {"base_url": server.base_url, "max_attempts": 3, "timeout_s": 5.0} | changes
    judge = OpenAIModerationJudge(OpenAIModerationParameters(**given), context(folder))
    MADE.append(judge)
    return judge


def test_a_text_is_judged_by_the_servers_flag(server: ModerationServer, tmp_path: Path) -> None:
    judge = moderation(server, tmp_path)
    found = judge.judge(subject(text=f"a {MARKER} on grey"))
    assert (found.verdict, found.score) == ("unsafe", 0.9)
    assert found.raw["model"] == "omni-moderation-latest-2024-09-26"
    assert found.raw["answer"]["results"][0]["category_scores"] == {"violence": 0.9, "harassment": 0.02}
    assert judge.judge(subject(text="a lighthouse")).verdict == "safe"
    assert server.bodies[0] == {"model": "omni-moderation-latest", "input": f"a {MARKER} on grey"}
    assert server.keys == [f"Bearer {KEY}"] * 2


def test_an_image_goes_out_as_a_data_address(server: ModerationServer, tmp_path: Path) -> None:
    assert moderation(server, tmp_path, max_image_side_px=32).judge(subject()).verdict == "safe"
    ((part,),) = [body["input"] for body in server.bodies]
    assert part["type"] == "image_url"
    prefix, _, data = part["image_url"]["url"].partition(",")
    assert prefix == "data:image/png;base64"
    assert max(decode_image(b64decode(data)).image_HWC.shape) == 32
    # What cannot be decoded is never sent.
    broken = moderation(server, tmp_path).judge(subject(image=b"no image"))
    assert broken.verdict is None
    assert "error" in broken.raw
    assert len(server.bodies) == 1


def test_own_thresholds_decide_in_place_of_the_servers(server: ModerationServer, tmp_path: Path) -> None:
    low = moderation(server, tmp_path, thresholds={"harassment": 0.01})
    found = low.judge(subject(text="a lighthouse"))
    assert (found.verdict, found.score) == ("unsafe", 0.02)
    assert low.version() == "omni-moderation-latest harassment>=0.01"
    other = moderation(server, tmp_path, thresholds={"harassment": 0.5})
    assert other.judge(subject(text=MARKER)).verdict == "safe"
    unknown = moderation(server, tmp_path, thresholds={"spam": 0.5}).judge(subject(text="a lighthouse"))
    assert unknown.verdict is None
    assert unknown.raw["error"] == "the answer has no score for spam"


@pytest.mark.parametrize(
    "faults",
    [
        (Fault(500), Fault(503)),
        (Fault(429, {"Retry-After": "0.01"}), Fault(429), Fault(429), Fault(429)),
        (Fault(200, body='{"results": [{"fla'),),
        (Fault(hang_s=9.0),),
    ],
    ids=["500", "429", "half", "hang"],
)
def test_passing_faults_are_tried_again(tmp_path: Path, faults: tuple[Fault, ...]) -> None:
    with ModerationServer(faults=faults) as server:
        judge = moderation(server, tmp_path, timeout_s=0.2 if faults[0].hang_s else 5.0)
        assert judge.judge(subject(text=MARKER)).verdict == "unsafe"
        assert len(server.bodies) == len(faults) + 1


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ((Fault(500),) * 3, "server_error: 500 the server is unwell"),
        ((Fault(400, body=json.dumps({"error": {"message": f"{KEY} is fine, this input is not"}})),), "<key> is fine"),
        ((Fault(200, body="{}"),), "no `flagged`"),
        ((Fault(200, body='{"results": [3]}'),), "no `flagged`"),
        ((Fault(200, body="[]"),), "no `flagged`"),
    ],
)
def test_one_bad_answer_is_not_judged_and_the_next_is(tmp_path: Path, faults: tuple[Fault, ...], said: str) -> None:
    with ModerationServer(faults=faults) as server:
        judge = moderation(server, tmp_path)
        bad = judge.judge(subject(text="a lighthouse"))
        assert bad.verdict is None
        assert said in bad.raw["error"]
        assert KEY not in json.dumps(dict(bad.raw))
        assert judge.judge(subject(text=MARKER)).verdict == "unsafe"


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_judge_that_cannot_be_had_stops_the_run(tmp_path: Path, status: int) -> None:
    body = json.dumps({"error": {"message": f"no such key {KEY}"}})
    with ModerationServer(faults=(Fault(status, body=body),)) as server:
        with pytest.raises(SourceError, match="the key in OPENAI_API_KEY") as caught:
            moderation(server, tmp_path).judge(subject(text="a lighthouse"))
        assert KEY not in str(caught.value)
        assert len(server.bodies) == 1


def test_a_server_that_fails_again_and_again_is_down(tmp_path: Path) -> None:
    with ModerationServer(faults=(Fault(500),) * 99) as server:
        judge = moderation(server, tmp_path, max_attempts=1)
        for _ in range(GIVE_UP_AFTER - 1):
            assert judge.judge(subject(text="a lighthouse")).verdict is None
        with pytest.raises(SourceError, match=f"{GIVE_UP_AFTER} failures in a row"):
            judge.judge(subject(text="a lighthouse"))


def test_the_key_comes_from_the_named_variable_alone(
    server: ModerationServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(SourceError, match="environment variable OPENAI_API_KEY, got none"):
        moderation(server, tmp_path).judge(subject(text="a lighthouse"))
    assert moderation(server, tmp_path, key_variable="").judge(subject(text="a lighthouse")).verdict == "safe"
    assert server.keys == [None]
    with pytest.raises(ConfigError, match="thresholds in"):
        OpenAIModerationParameters(thresholds={"violence": 1.5})


POLICY = "O1: red squares. Answer in JSON."


def guard(server: ChatServer, folder: Path, **changes: Any) -> LlavaGuardJudge:
    given = {"model": "guard", "policy": POLICY, "base_url": server.base_url, "max_attempts": 2} | changes
    judge = LlavaGuardJudge(LlavaGuardParameters(**given), context(folder))
    MADE.append(judge)
    return judge


def test_a_guard_behind_a_chat_endpoint_is_shown_image_and_policy(tmp_path: Path) -> None:
    said = '```json\n{"rating": "Unsafe", "category": "O1", "rationale": "a {red} square"}\n```'
    with ChatServer(lambda _: Answer(said)) as server:
        found = guard(server, tmp_path).judge(subject())
        assert (found.verdict, found.raw) == ("unsafe", {"answer": said, "model": "guard-2026-01-01"})
        (image, text) = server.bodies[0]["messages"][0]["content"]
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
        assert text == {"type": "text", "text": POLICY}
        assert server.keys == [None]
        assert guard(server, tmp_path, kinds=("image", "text")).judge(subject(text="a lighthouse")).verdict == "unsafe"
        (text,) = server.bodies[1]["messages"][0]["content"]
        assert text["text"] == f"{POLICY}\n\na lighthouse"


def test_a_guard_that_says_nothing_usable_gives_no_verdict(tmp_path: Path) -> None:
    with ChatServer(lambda _: Answer(None), faults=(ChatFault(400),)) as server:
        judge = guard(server, tmp_path)
        refused = judge.judge(subject())
        assert (refused.verdict, "rejected" in refused.raw["error"]) == (None, True)
        empty = judge.judge(subject(image=picture(seed=1)))
        assert (empty.verdict, empty.raw["error"]) == (None, "the answer has no rating")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("safe", "safe"), ("\n\n unsafe\nS1,S2", "unsafe"), ("**Unsafe**", "unsafe"), ("Safe.", "safe"),
        ('{"rating": "safe"}', "safe"), ('Here: {"RATING": "UNSAFE"} and more', "unsafe"),
        ('{"rating": "perhaps"}', None), ('{"score": 3}', None), ('{"rating": ', None), ("", None),
        ("It is not safe to say.", None), ("unsafe or safe", None), ("{" * 5000, None),
    ],
)  # fmt: skip
def test_ratings_are_read_or_there_is_none(answer: str, verdict: str | None) -> None:
    assert read_rating(answer) == verdict
