"""Gemini through `google-genai`, on our transport: outcomes, costs, faults, the SynthID note."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.job import Outcome
from synth import image_server as faults
from synth.api_jobs import KEY, Make, job, no_inputs
from synth.image_server import ImageServer, image_of


def one(generator: ApiGenerator, inputs: Any = no_inputs, **given: Any) -> Outcome:
    [(_, outcome)] = generator.run([job("a fox", **{"model": generator.context.model, **given})], inputs)
    return outcome


def says(reason: str, text: str | None = None) -> faults.Fault:
    content = {"content": {"parts": [{"text": text}]}} if text else {}
    return faults.answers({"candidates": [{**content, "finishReason": reason}]})


def test_what_is_asked_and_what_is_written_down(
    server: ImageServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    modalities = [{"modality": "IMAGE", "tokenCount": 1290}]
    server.usage = {
        "promptTokenCount": 10, "candidatesTokenCount": 1290, "candidatesTokensDetails": modalities,
        "thoughtsTokenCount": 100,
    }  # fmt: skip
    price = {"per_million_tokens_usd": {"text_input": 0.3, "text_output": 2.5, "image_output": 30}}
    with caplog.at_level(logging.DEBUG):
        outcome = one(make("google", price=price, aspect_ratio="16:9", image_size="2K", send_seed=True))
    settings = server.bodies[0]["generationConfig"]
    assert settings["responseModalities"] == ["IMAGE"]
    assert settings["imageConfig"] == {"aspectRatio": "16:9", "imageSize": "2K"}
    assert settings["seed"] == 7
    assert outcome.data == image_of("a fox")
    facts = outcome.provenance
    assert (facts["response_id"], facts["model_version_returned"]) == ("resp-a fox", "model-as-served")
    assert facts["cost_usd"] == pytest.approx((10 * 0.3 + 100 * 2.5 + 1290 * 30) / 1e6, abs=1e-6)
    assert facts["cost_basis"] == "usage"
    assert "not looked for" in facts["notes"]["synthid"]
    assert server.headers[0]["x-goog-api-key"] == KEY
    assert KEY not in repr(outcome) + caplog.text


def test_input_images_go_along(server: ImageServer, make: Make) -> None:
    data = image_of("input")
    one(make("google"), lambda _: data, image_sha256="a" * 64)
    sent = server.bodies[0]["contents"][0]["parts"][1]["inlineData"]
    assert base64.urlsafe_b64decode(sent["data"]) == data
    assert "image/png" in sent.values()  # `mimeType` or `mime_type`, as the package likes


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (says("SAFETY"), "blocked", "SAFETY"),
        (says("PROHIBITED_CONTENT"), "blocked", "PROHIBITED_CONTENT"),
        (says("IMAGE_SAFETY"), "blocked", "IMAGE_SAFETY"),
        (says("NO_IMAGE"), "refused", "NO_IMAGE"),
        (says("STOP", "I would rather not."), "refused", "STOP I would rather not."),
        (says("A_NEW_REASON", "words"), "refused", "A_NEW_REASON words"),
        (faults.answers({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), "blocked", "PROHIBITED_CONTENT"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:A_NEW_REASON is not a valid:UserWarning")  # google-genai tells of words it lacks
def test_answers_without_an_image(server: ImageServer, make: Make, fault: Any, kind: str, words: str) -> None:
    server.default = fault
    outcome = one(make("google"))
    assert (outcome.kind, server.counts["a fox"]) == (kind, 1)
    assert outcome.detail.startswith(words)
    assert outcome.is_final


def test_thoughts_are_not_the_answer(server: ImageServer, make: Make) -> None:
    draft, final = (base64.b64encode(image_of(name)).decode() for name in ("draft", "final"))
    parts = [
        {"text": "thinking", "thought": True},
        {"inlineData": {"mimeType": "image/png", "data": draft}, "thought": True},
        {"inlineData": {"mimeType": "image/png", "data": final}},
    ]
    server.default = faults.answers({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    assert one(make("google")).data == image_of("final")


@pytest.mark.parametrize(
    "fault",
    [
        faults.answers([]),
        faults.answers({"candidates": "no"}),
        faults.answers({"candidates": []}),
        faults.answers({"candidates": [{"content": {"parts": [{"inlineData": 7}]}}]}),
        faults.raw(b"{"),
        faults.raw(b"<html></html>", "text/html"),
        faults.truncated(),
        faults.invalid_base64(),
        faults.not_an_image(),
        faults.status(500),
        faults.too_many("3"),
        says("MALFORMED_RESPONSE"),
    ],
)
def test_broken_answers_are_tried_again(server: ImageServer, make: Make, fault: Any) -> None:
    server.plan("a fox", fault)
    outcome = one(make("google"))
    assert (outcome.kind, outcome.data, server.counts["a fox"]) == ("image", image_of("a fox"), 2)


def test_the_delay_in_an_error_body_is_waited_for(server: ImageServer, make: Make) -> None:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}
    server.plan("a fox", faults.status(429, {"status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [retry]}))
    generator = make("google")
    assert one(generator).kind == "image"
    assert 37 <= generator.clock.now_s() <= 38


def test_a_wrong_key_is_a_400_here(server: ImageServer, make: Make) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    server.default = faults.status(400, {"status": "INVALID_ARGUMENT", "message": "not valid", "details": [info]})
    with pytest.raises(ConfigError, match=r"the key in GEMINI_API_KEY refused: .*400 not valid"):
        one(make("google"))


def test_imagen_is_gone(make: Make) -> None:
    with pytest.raises(ConfigError, match="shut Imagen down on 2026-08-17"):
        make("google", model="imagen-4.0-generate-001")
