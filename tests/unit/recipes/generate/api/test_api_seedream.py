"""The images API of Ark: its own fields, and errors in place of an image."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.recipes.generate.api.client import ApiGenerator
from forgery_det.recipes.generate.job import Outcome
from synth import image_server as faults
from synth.api_jobs import Make, job, no_inputs
from synth.image_server import ImageServer, image_of


def one(generator: ApiGenerator, inputs: Any = no_inputs, **given: Any) -> Outcome:
    [(_, outcome)] = generator.run([job("a fox", **given)], inputs)
    return outcome


def test_what_is_asked(server: ImageServer, make: Make) -> None:
    server.usage = {"generated_images": 1, "output_tokens": 4096, "total_tokens": 4096}
    outcome = one(make("ark", size="2K", usd_per_image=0.03), model="seedream-4-0-250828")
    assert server.bodies == [
        {
            "model": "seedream-4-0-250828", "prompt": "a fox", "size": "2K", "watermark": False,
            "sequential_image_generation": "disabled", "response_format": "b64_json",
        }
    ]  # fmt: skip
    assert outcome.data == image_of("a fox")
    facts = outcome.provenance
    assert (facts["cost_usd"], facts["cost_basis"], facts["usage"]) == (0.03, "price table", server.usage)


def test_seedream_3_takes_a_seed_and_no_sequence(server: ImageServer, make: Make) -> None:
    one(make("ark", send_seed=True, guidance_scale=2.5), model="seedream-3-0-t2i-250415", seed=11)
    assert (server.bodies[0]["seed"], server.bodies[0]["guidance_scale"]) == (11, 2.5)
    assert "sequential_image_generation" not in server.bodies[0]


def test_an_input_image_goes_along_as_a_data_url(server: ImageServer, make: Make) -> None:
    data = image_of("input")
    outcome = one(make("ark"), lambda _: data, image_sha256="a" * 64)
    assert server.bodies[0]["image"] == "data:image/png;base64," + base64.b64encode(data).decode()
    assert outcome.provenance["request"]["image_sha256"] == "a" * 64
    assert "image" not in outcome.provenance["request"]


@pytest.mark.parametrize(
    "code", ["InputTextSensitiveContentDetected", "OutputImageSensitiveContentDetected", "OutputImageRiskDetection"]
)
def test_a_content_filter_is_a_block_wherever_it_speaks(server: ImageServer, make: Make, code: str) -> None:
    server.plan("a fox", faults.status(400, {"code": code, "message": "may contain sensitive information"}))
    assert one(make("ark")).kind == "blocked"
    server.plan("a fox", faults.answers({"data": [{"error": {"code": code, "message": "sensitive"}}]}))
    outcome = one(make("ark"))
    assert (outcome.kind, outcome.detail) == ("blocked", f"{code} sensitive")
    server.plan("a fox", faults.answers({"error": {"code": code, "message": "sensitive"}}))
    assert one(make("ark")).kind == "blocked"


def test_another_error_in_place_of_the_image_is_tried_again(server: ImageServer, make: Make) -> None:
    server.plan("a fox", faults.answers({"data": [{"error": {"code": "InternalServiceError", "message": "oh"}}]}))
    assert (one(make("ark")).kind, server.counts["a fox"]) == ("image", 2)


def test_an_overdue_account_stops_the_run(server: ImageServer, make: Make) -> None:
    server.default = faults.status(403, {"code": "AccountOverdueError", "message": "overdue"})
    with pytest.raises(ConfigError, match=r"the key in ARK_API_KEY refused: .*403 overdue"):
        one(make("ark"))


def test_fields_with_keys_are_not_for_extra_body(make: Make) -> None:
    with pytest.raises(ConfigError, match="got watermark"):
        make("ark", extra_body={"watermark": True})
