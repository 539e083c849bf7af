"""What all API generators share, against a server that misbehaves: retries, limits, waits, stops, keys."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError, ForgeryDetError, SourceError
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.api.retry import Gate, RetryPolicy
from forgery_det.recipes.generate.job import Outcome
from forgery_det.recipes.generate.store import JobStore
from synth import image_server as faults
from synth.api_jobs import KEY, FakeClock, Make, job, no_inputs
from synth.image_server import ImageServer, image_of


def run(generator: ApiGenerator, *prompts: str) -> dict[str | None, Outcome]:
    return {done.prompt: outcome for done, outcome in generator.run([job(prompt) for prompt in prompts], no_inputs)}


def slept(generator: ApiGenerator) -> list[float]:
    assert isinstance(generator.clock, FakeClock)
    return generator.clock.slept


RETRIED = {
    "429": faults.too_many(),
    "429 with Retry-After": faults.too_many("7"),
    "408": faults.status(408),
    "500": faults.status(500),
    "503 as HTML": lambda api: api.send(503, b"<h1>Service Unavailable</h1>", "text/html"),
    "truncated": faults.truncated(),
    "HTML that says 200": faults.raw(b"<html></html>", "text/html"),
    "half of a JSON": faults.raw(b'{"data": ['),
    "JSON nested deep": faults.raw(b"[" * 200_000),
    "invalid base64": faults.invalid_base64(),
    "not an image": faults.not_an_image(),
    "reset": faults.reset(),
}


@pytest.mark.parametrize("name", RETRIED)
def test_a_passing_fault_is_tried_again(server: ImageServer, make: Make, name: str) -> None:
    server.plan("a fox", RETRIED[name])
    generator = make()
    outcome = run(generator, "a fox")["a fox"]
    assert (outcome.kind, outcome.data, server.counts["a fox"]) == ("image", image_of("a fox"), 2)
    assert outcome.provenance["attempts"] == 2
    assert len(slept(generator)) in (1, 2)


@pytest.mark.parametrize("fault", [faults.hang(), faults.drip()], ids=["hang", "slow drip"])
def test_an_answer_that_does_not_come_in_time_is_asked_for_again(server: ImageServer, make: Make, fault: Any) -> None:
    server.plan("a fox", fault)
    outcome = run(make(timeout_s=0.25), "a fox")["a fox"]
    assert (outcome.kind, server.counts["a fox"], outcome.provenance["lost_answers"]) == ("image", 2, 1)


def test_nothing_listens(server: ImageServer, make: Make) -> None:
    generator = make(base_url="http://127.0.0.1:9", max_attempts=3, stop_after_failures=0)
    outcome = run(generator, "a fox")["a fox"]
    assert outcome.kind == "failed"
    assert "cannot connect" in outcome.detail
    assert "asked 3 times" in outcome.detail
    assert outcome.provenance["lost_answers"] == 0


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [("7", 7.0), ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0), ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0)],
)
def test_retry_after_is_waited_for(server: ImageServer, make: Make, header: str, expected_s: float) -> None:
    server.plan("a fox", faults.too_many(header))
    generator = make()
    assert run(generator, "a fox")["a fox"].kind == "image"
    assert expected_s <= sum(slept(generator)) <= expected_s + generator.backoff_base_s


def test_rate_limits_do_not_use_up_the_attempts(server: ImageServer, make: Make) -> None:
    server.plan("a fox", *[faults.too_many("2")] * 9)
    outcome = run(make(max_attempts=2), "a fox")["a fox"]
    assert (outcome.kind, server.counts["a fox"]) == ("image", 10)


def test_a_rate_limit_without_end_is_given_up(server: ImageServer, make: Make) -> None:
    server.default = faults.too_many("20")
    outcome = run(make(max_wait_s=70), "a fox")["a fox"]
    assert (outcome.kind, server.counts["a fox"]) == ("failed", 4)
    assert outcome.detail.startswith("rate_limited: 429 slow down")


def test_a_wait_beyond_patience_stops_the_run(server: ImageServer, make: Make) -> None:
    server.default = faults.too_many("3600")
    with pytest.raises(SourceError, match=r"a request to wait 3600 s .*run the same command again later"):
        run(make(max_wait_s=900), "a fox")


def test_one_workers_wait_holds_back_all() -> None:
    clock = FakeClock()
    gate = Gate(clock)
    gate.pause(12.0)
    gate.pause(3.0)
    assert gate.wait(threading.Event())
    assert clock.now_s() == 12.0
    stopped = threading.Event()
    stopped.set()
    assert not gate.wait(stopped)


def test_used_up_limits_of_a_good_answer_are_waited_for(server: ImageServer, make: Make) -> None:
    server.response_headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"}
    generator = make(concurrency=1)
    run(generator, "one", "two")
    assert slept(generator) == [62.0]


def test_backoff_grows_to_its_cap_with_full_jitter() -> None:
    import random

    policy, chance = RetryPolicy(base_s=1.0, cap_s=8.0), random.Random(1)
    waits = {attempt: [policy.backoff_s(attempt, chance) for _ in range(400)] for attempt in (1, 2, 4, 9)}
    for attempt, most in ((1, 1.0), (2, 2.0), (4, 8.0), (9, 8.0)):
        assert 0.9 * most < max(waits[attempt]) <= most
        assert min(waits[attempt]) < 0.1 * most


def test_a_bad_request_is_not_repeated(server: ImageServer, make: Make) -> None:
    server.plan("a fox", faults.status(400, {"message": "Invalid size", "code": "invalid_value"}))
    outcome = run(make(), "a fox")["a fox"]
    assert (outcome.kind, server.counts["a fox"]) == ("failed", 1)
    assert outcome.detail == "rejected: 400 Invalid size (asked once)"


@pytest.mark.parametrize(
    ("status", "error", "expected", "text"),
    [
        (401, "wrong key", ConfigError, r"the key in OPENAI_API_KEY refused: .*401 wrong key"),
        (403, "not verified", ConfigError, r"the key in OPENAI_API_KEY refused: .*403 not verified"),
        (404, "no such model", ConfigError, r"Expected the model 'gpt-image-x' at this address, got none"),
        (400, {"message": "gone", "code": "model_not_found"}, ConfigError, r"Expected the model 'gpt-image-x' at"),
        (429, {"message": "pay", "code": "insufficient_quota"}, SourceError, "Expected an account with credit"),
        (
            400,
            {"message": "limit", "code": "billing_hard_limit_reached"},
            SourceError,
            "Expected an account with credit",
        ),
    ],
)
def test_what_no_job_survives_stops_the_run(
    server: ImageServer, make: Make, status: int, error: Any, expected: type[ForgeryDetError], text: str
) -> None:
    server.default = faults.status(status, error)
    with pytest.raises(expected, match=text) as raised:
        run(make(concurrency=1), "one", "two", "three")
    assert "Everything made so far is kept" in str(raised.value)
    assert server.counts.total() == 1


def test_jobs_under_way_are_finished_and_kept_when_the_run_stops(
    server: ImageServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = threading.Event()
    generator = make(concurrency=3)
    stopped = generator._stopped
    monkeypatch.setattr(generator, "_stopped", lambda *words: (stopped(*words), refused.set())[0])
    server.plan("bad", faults.status(401))
    server.default = faults.after(refused)
    came: list[tuple[str | None, str]] = []
    outcomes = generator.run([job(prompt) for prompt in ("one", "two", "bad", "three", "four")], no_inputs)
    with pytest.raises(ConfigError):
        came.extend((done.prompt, outcome.kind) for done, outcome in outcomes)
    assert sorted(came) == [("one", "image"), ("two", "image")]
    assert server.counts.total() == 3


def test_a_lost_answer_is_risked_once_more_and_no_more(server: ImageServer, make: Make) -> None:
    server.default = faults.not_an_image()
    price = {"per_image_usd": {"default": 0.25}}
    outcome = run(make(price=price, stop_after_failures=0), "a fox")["a fox"]
    assert (outcome.kind, server.counts["a fox"]) == ("failed", 2)
    assert outcome.provenance["lost_usd"] == outcome.provenance["cost_usd"] == 0.5
    assert "not_an_image" in outcome.detail


def test_an_oversized_answer_is_paid_for_once(server: ImageServer, make: Make) -> None:
    server.default = faults.oversized(60_000)
    generator = make(stop_after_failures=0)
    generator.max_response_bytes = 50_000
    outcome = run(generator, "a fox")["a fox"]
    assert (outcome.kind, server.counts["a fox"], outcome.provenance["lost_answers"]) == ("failed", 1, 1)
    assert "expected at most 50000 bytes" in outcome.detail


def test_compressed_answers_are_not_unpacked(server: ImageServer, make: Make) -> None:
    server.default = faults.raw(b"\x1f\x8b" + bytes(100), Content_Encoding="gzip")
    assert "uncompressed" in run(make(stop_after_failures=0), "a fox")["a fox"].detail
    assert server.headers[0]["accept-encoding"] == "identity"


def test_redirects_are_not_followed(server: ImageServer, make: Make) -> None:
    server.default = faults.status(307, "elsewhere", Location=server.address + "/v1/other")
    assert "redirect" in run(make(), "a fox")["a fox"].detail
    assert server.counts.total() == 1


def test_never_more_requests_at_once_than_asked_for(server: ImageServer, make: Make) -> None:
    server.default = faults.together(3)
    outcomes = run(make(concurrency=3), *[f"prompt {index}" for index in range(12)])
    assert len(outcomes) == 12
    assert server.max_open == 3


def test_a_server_that_fails_one_job_after_another_stops_the_run(server: ImageServer, make: Make) -> None:
    server.default = faults.status(500)
    came: list[str] = []
    generator = make(concurrency=1, max_attempts=2, stop_after_failures=3)
    outcomes = generator.run([job(f"prompt {index}") for index in range(20)], no_inputs)
    with pytest.raises(SourceError, match="got 3 failed jobs in a row"):
        came.extend(outcome.kind for _, outcome in outcomes)
    assert came == ["failed", "failed", "failed"]
    assert server.counts.total() == 6


def test_an_image_in_between_is_no_row_of_failures(server: ImageServer, make: Make) -> None:
    prompts = [f"prompt {index}" for index in range(6)]
    for prompt in prompts[::2]:
        server.plan(prompt, faults.status(400, "no"))
    outcomes = run(make(concurrency=1, stop_after_failures=2), *prompts)
    assert [outcomes[prompt].kind for prompt in prompts] == ["failed", "image"] * 3


def test_closing_the_iterator_stops_the_work(server: ImageServer, make: Make) -> None:
    outcomes = make(concurrency=1).run([job(f"prompt {index}") for index in range(50)], no_inputs)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    asked = server.counts.total()
    time.sleep(0.05)
    assert server.counts.total() == asked <= 2


def test_a_defect_in_a_worker_surfaces(server: ImageServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make()

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(generator, "ask", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        run(generator, "a fox")


def test_the_key_is_written_nowhere(
    server: ImageServer, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    echo = {"message": f"Incorrect API key provided: {KEY}", "code": "odd", "details": [KEY]}
    server.plan("echoes", faults.status(400, echo))
    server.plan("refuses", faults.answers({"data": [{"revised_prompt": f"no, {KEY}"}], "id": KEY, "usage": {KEY: KEY}}))
    server.plan("fails", faults.status(500, echo), faults.too_many("soon"), faults.status(500, echo))
    store = JobStore(tmp_path / "cache")
    texts = []
    with caplog.at_level(logging.DEBUG):
        for done, outcome in make(max_attempts=2).run(
            [job(p) for p in ("echoes", "refuses", "fails", "fine")], no_inputs
        ):
            store.put(done, outcome)
            texts.append(repr(outcome))
        server.default = faults.status(401, echo)
        with pytest.raises(ConfigError) as raised:
            run(make(), "a fox")
    texts += ["".join(traceback.format_exception(raised.value)), caplog.text, repr(raised.value.__context__)]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert not [text for text in texts if KEY in text]


def test_a_missing_key_names_its_variable(server: ImageServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="environment variable OPENAI_API_KEY, got none"):
        run(make(), "a fox")
    with pytest.raises(ConfigError, match="environment variable MY_KEY, got none"):
        run(make(key_variable="MY_KEY"), "a fox")


def test_a_server_without_keys_is_sent_none(server: ImageServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert run(make(key_variable=""), "a fox")["a fox"].kind == "image"
    assert "authorization" not in server.headers[0]


def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(make: Make) -> None:
    with pytest.raises(ConfigError, match="environment variable") as raised:
        make(key_variable=KEY)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"concurrency": 0}, "`concurrency` of 1"),
        ({"timeout_s": 0}, "`timeout_s` above 0"),
        ({"lost_retries": -1}, "0 or more"),
    ],
)
def test_parameters_out_of_range(make: Make, given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make(**given)


@pytest.mark.parametrize("address", ["localhost:8000/v1", "ftp://host/v1", "https://"])
def test_an_address_that_is_none(make: Make, address: str) -> None:
    with pytest.raises(ConfigError, match="as an http or https address"):
        make(base_url=address)


@pytest.mark.parametrize("address", [f"https://me:{KEY}@host/v1", f"https://host/v1?key={KEY}"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(make: Make, address: str) -> None:
    with pytest.raises(ConfigError, match="without user, password, query") as raised:
        make(base_url=address)
    assert KEY not in str(raised.value)


def test_where_and_how_a_server_is_asked_decides_no_job(make: Make) -> None:
    assert make().job_parameters() == make(concurrency=9, base_url="http://other", timeout_s=1).job_parameters()
    assert make().job_parameters() != make(size="512x512").job_parameters()


CLIENT = """
    import sys
    from pathlib import Path
    from forgery_det.recipes.generate.base import GeneratorContext, GeneratorSpec
    from forgery_det.recipes.generate.api.openai_images import OpenAIImagesParameters
    from forgery_det.recipes.generate.job import Job
    from forgery_det.recipes.generate.store import JobStore

    url, folder = sys.argv[1], Path(sys.argv[2])
    store = JobStore(folder)
    jobs = [Job("toy", "openai_images", "gpt-image-x", "", f"prompt {i}", None, 7, {}) for i in range(40)]
    context = GeneratorContext("toy", "gpt-image-x", None, folder, folder)
    spec = GeneratorSpec("openai_images", OpenAIImagesParameters(base_url=url, concurrency=3), context)
    assert "torch" not in sys.modules
    for job, outcome in spec.create().run(jobs, lambda sha: b""):
        store.put(job, outcome)
"""


def test_a_killed_run_repeats_at_most_what_was_in_flight(server: ImageServer, make: Make, tmp_path: Path) -> None:
    resume = threading.Event()
    server.default = faults.hold_after(12, resume)
    command = [sys.executable, "-c", textwrap.dedent(CLIENT), f"{server.address}/v1", str(tmp_path)]
    first = subprocess.Popen(command)
    while server.counts.total() < 15:  # 12 are made, 3 are in flight and held back
        assert first.poll() is None
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.wait()
    server.default = None
    resume.set()
    store, jobs = JobStore(tmp_path), [job(f"prompt {index}") for index in range(40)]
    stored = {one.job_id for one in jobs if store.is_done(one.job_id)}
    # Three workers: an image is stored before its worker asks for another.
    assert 9 <= len(stored) <= 12
    for done, outcome in make(concurrency=3).run([one for one in jobs if one.job_id not in stored], no_inputs):
        store.put(done, outcome)
    for one in jobs:
        found = store.get(one.job_id)
        assert found is not None
        assert found.data == image_of(str(one.prompt))
        if one.job_id in stored:  # paid for and kept, so never asked for again
            assert server.counts[str(one.prompt)] == 1
    assert server.counts.total() - 40 == 15 - len(stored)


def test_the_proxy_of_the_environment_is_used(server: ImageServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    outcome = run(make(base_url="http://images.example.invalid/v1"), "a fox")["a fox"]
    assert (outcome.kind, server.headers[0]["host"]) == ("image", "images.example.invalid")
