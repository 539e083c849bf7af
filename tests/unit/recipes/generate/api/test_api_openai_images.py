"""The OpenAI images protocol: what is sent, what each kind of answer becomes, and what is written down."""

from __future__ import annotations

from typing import Any

import pytest

from forgery_det.core.artefacts import sha256_bytes
from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.job import Job, Outcome
from synth import image_server as faults
from synth.api_jobs import KEY, Make, job, no_inputs
from synth.image_server import ImageServer, image_of


def one(generator: ApiGenerator, asked: Job, inputs: Any = no_inputs) -> Outcome:
    [(_, outcome)] = generator.run([asked], inputs)
    return outcome


def test_what_is_asked_and_what_is_written_down(server: ImageServer, make: Make) -> None:
    generator = make(size="1024x1024", quality="low", background="opaque", output_format="png", moderation="low")
    outcome = one(generator, job("a fox"))
    sent = {
        "model": "gpt-image-x", "prompt": "a fox", "n": 1, "size": "1024x1024", "quality": "low",
        "background": "opaque", "output_format": "png", "moderation": "low",
    }  # fmt: skip
    assert server.bodies == [sent]
    assert outcome.data == image_of("a fox")
    facts = dict(outcome.provenance)
    assert facts.pop("duration_s") >= 0
    assert facts == {
        "request": sent | {"url": f"{server.address}/v1/images/generations"},
        "response_id": "req-a fox",
        "model_version_returned": "model-as-served",
        "created": 1700000000,
        "cost_usd": 0.0,
        "lost_usd": 0.0,
        "cost_basis": "unknown",
        "attempts": 1,
        "lost_answers": 0,
        "notes": {},
    }


def test_a_serving_engine_gets_its_seed_and_its_own_fields(server: ImageServer, make: Make) -> None:
    generator = make(
        key_variable="",
        send_seed=True,
        negative_prompt="text",
        extra_body={"num_inference_steps": 50, "true_cfg_scale": 4.0},
    )
    asked = Job("bagel", "openai_images", "ByteDance-Seed/BAGEL-7B-MoT", "", "a fox", "text", 11, {})
    assert one(generator, asked).kind == "image"
    assert server.bodies == [
        {
            "model": "ByteDance-Seed/BAGEL-7B-MoT", "prompt": "a fox", "n": 1, "negative_prompt": "text", "seed": 11,
            "num_inference_steps": 50, "true_cfg_scale": 4.0,
        }
    ]  # fmt: skip


def test_an_edit_sends_image_and_mask(server: ImageServer, make: Make) -> None:
    image, mask = image_of("input"), image_of("mask")
    kept = {sha256_bytes(data): data for data in (image, mask)}
    shas = list(kept)
    asked = job("a fox", image_sha256=shas[0], mask_sha256=shas[1])
    outcome = one(make(size="auto", extra_body={"watermark": False}), asked, kept.__getitem__)
    assert outcome.kind == "image"
    sent = {"model": "gpt-image-x", "prompt": "a fox", "n": "1", "size": "auto", "watermark": "false"}
    assert server.bodies == [sent | {"image": image, "mask": mask}]
    request = outcome.provenance["request"]
    assert request["url"].endswith("/v1/images/edits")
    assert (request["image_sha256"], request["mask_sha256"]) == tuple(shas)


def test_an_address_is_fetched_without_the_key(server: ImageServer, make: Make) -> None:
    server.plan("a fox", faults.link("fox.png"))
    outcome = one(make(), job("a fox"))
    assert outcome.data == image_of("fox.png")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in server.headers[1]


def test_a_download_is_tried_again_without_asking_for_another_image(server: ImageServer, make: Make) -> None:
    server.plan("a fox", faults.link("fox.png"))
    server.plan("GET fox.png", faults.status(500), faults.truncated_file(), faults.status(404))
    assert one(make(), job("a fox")).data == image_of("fox.png")
    assert (server.counts["a fox"], server.counts["GET fox.png"]) == (1, 4)


def test_a_download_that_never_comes_is_a_lost_image(server: ImageServer, make: Make) -> None:
    server.default = faults.status(403)
    server.plan("a fox", *[faults.link("fox.png")] * 2)
    outcome = one(make(usd_per_image=1.0, stop_after_failures=0), job("a fox"))
    assert (outcome.kind, outcome.provenance["lost_usd"], server.counts["a fox"]) == ("failed", 2.0, 2)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/file", "//host/file"])
def test_other_addresses_are_not_opened(server: ImageServer, make: Make, url: str) -> None:
    server.default = faults.answers({"data": [{"url": url}]})
    assert "https address" in one(make(stop_after_failures=0), job("a fox")).detail


@pytest.mark.parametrize(
    "error",
    [
        {"message": "rejected by the safety system", "code": "moderation_blocked"},
        {"message": "no", "code": "content_policy_violation"},
        {"message": "Azure", "code": "contentFilter"},
        {"message": "Your request was rejected as a result of our safety system."},
    ],
)
def test_a_safety_block_is_an_outcome(server: ImageServer, make: Make, error: dict[str, str]) -> None:
    server.default = faults.status(400, error)
    outcome = one(make(price={"per_image_usd": {"default": 1.0}}), job("a fox"))
    assert (outcome.kind, outcome.is_final, server.counts["a fox"]) == ("blocked", True, 1)
    assert error["message"] in outcome.detail
    assert (outcome.provenance["cost_usd"], outcome.provenance["request"]["prompt"]) == (0.0, "a fox")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"data": []}, "an answer without an image"),
        ({"data": None, "message": "I cannot draw that"}, "I cannot draw that"),
        ({"data": [{"revised_prompt": "I would rather write a poem"}]}, "I would rather write a poem"),
        ({"data": [{"b64_json": None, "url": None, "text": "sorry"}]}, "sorry"),
    ],
)
def test_words_in_place_of_an_image_are_a_refusal(server: ImageServer, make: Make, content: Any, words: str) -> None:
    server.default = faults.answers(content)
    outcome = one(make(), job("a fox"))
    assert (outcome.kind, outcome.detail, outcome.is_final) == ("refused", words, True)


@pytest.mark.parametrize("content", [[], "no", 7, {"data": "no"}, {"data": ["no"]}, {"data": {"b64_json": "aGk="}}])
def test_answers_of_another_form_are_tried_again(server: ImageServer, make: Make, content: Any) -> None:
    server.plan("a fox", faults.answers(content))
    assert (one(make(), job("a fox")).kind, server.counts["a fox"]) == ("image", 2)


def test_errors_of_a_serving_engine_are_read(server: ImageServer, make: Make) -> None:
    server.default = faults.raw_status(422, b'{"detail": [{"loc": ["body", "prompt"], "msg": "field required"}]}')
    assert "field required" in one(make(), job("a fox")).detail


def test_a_gateway_can_recognise_a_repeated_request(server: ImageServer, make: Make) -> None:
    server.plan("a fox", faults.status(500))
    one(make(idempotency_header="Idempotency-Key"), job("a fox"))
    assert [headers["idempotency-key"] for headers in server.headers] == [job("a fox").job_id] * 2


def test_fields_of_the_job_are_not_for_extra_body(make: Make) -> None:
    with pytest.raises(ConfigError, match="got n, prompt"):
        make(extra_body={"prompt": "another", "n": 4})


def test_price_by_quality_and_size(make: Make) -> None:
    table = {"low/1024x1024": 0.01, "high/1024x1024": 0.2}
    assert make(price={"per_image_usd": table}, quality="low", size="1024x1024").price_usd(job("a fox")) == 0.01
    assert make(price={"per_image_usd": table}).price_usd(job("a fox")) == 0.2  # `auto` may choose the dearest
    assert make(price={"per_image_usd": table}, quality="low").price_usd(job("a fox")) == 0.01
    assert make(price={"per_image_usd": table}, size="4096x4096").price_usd(job("a fox")) is None
    assert make().price_usd(job("a fox")) is None


def test_openais_watermark_is_noted_for_its_own_service_alone(server: ImageServer, make: Make) -> None:
    generator = make()
    assert one(generator, job("a fox")).provenance["notes"] == {}
    generator.default_url = generator.url  # type: ignore[misc]
    assert "2026-05-19" in one(generator, job("a fox")).provenance["notes"]["synthid"]
