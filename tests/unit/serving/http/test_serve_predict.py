"""`/v1/predict` and `/v1/explain`: the numbers of the `Predictor`, whatever comes beside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from forgery_det.core.image_io import encode_image
from forgery_det.serving.http.app import create_app
from forgery_det.serving.http.settings import Limits, ServeSettings
from forgery_det.serving.image_warnings import WARNINGS
from forgery_det.serving.predictor import Predictor
from synth.hostile import EITHER, SCORED, hostile_images
from synth.images import smooth_image
from synth.service import plain_png


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    limits = Limits(max_pixels=3_000_000)
    with TestClient(create_app(predictor, ServeSettings(limits)), raise_server_exceptions=False) as one:
        yield one


def files(*images: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", image) for image in images]


def test_form_and_json_give_the_numbers_of_the_predictor(client: TestClient, predictor: Predictor) -> None:
    images = [encode_image(smooth_image(seed, 90 + seed, 80), "jpeg", 80) for seed in range(3)]
    expected = list(predictor.predict(images))
    form = client.post("/v1/predict", files=files(*((f"{n}.jpg", data) for n, data in enumerate(images)))).json()
    body = {"images": [{"name": str(n), "base64": base64.b64encode(data).decode()} for n, data in enumerate(images)]}
    json = client.post("/v1/predict", json=body).json()
    for answer in (form, json):
        found = answer["images"]
        np.testing.assert_allclose([one["logit"] for one in found], [one.logit for one in expected], atol=1e-6)
        np.testing.assert_allclose([one["score"] for one in found], [one.score for one in expected], atol=1e-6)
        assert [one["decision"] for one in found] == [one.decision for one in expected]
        assert [one["index"] for one in found] == [0, 1, 2]
        assert answer["model"] == {"name": "brightness", "version": "0123456789ab", "format": "onnx"}
    assert [one["name"] for one in form["images"]] == ["0.jpg", "1.jpg", "2.jpg"]
    facts = form["images"][1]["facts"]
    assert (facts["codec"], facts["width_px"], facts["height_px"], facts["jpeg_quality"]) == ("jpeg", 91, 80, 80)
    assert facts["n_bytes"] == len(images[1])


@pytest.mark.parametrize(
    ("query", "threshold", "decisions"),
    [
        ("", 1.0, ["real", "uncertain", "real", "generated"]),
        ("?operating_point=fpr_5pct", 1.0, ["real", "uncertain", "real", "generated"]),
        ("?operating_point=balanced", 0.0, ["real", "uncertain", "generated", "generated"]),
    ],
)
def test_decision_at_the_named_operating_point(
    client: TestClient, query: str, threshold: float, decisions: list[str]
) -> None:
    levels = [plain_png(level) for level in (0, 130, 148, 255)]
    answer = client.post(f"/v1/predict{query}", files=files(*(("x.png", data) for data in levels))).json()
    assert answer["operating_point"]["threshold"] == threshold
    assert [one["decision"] for one in answer["images"]] == decisions
    assert [one["abstained"] for one in answer["images"]] == [decision == "uncertain" for decision in decisions]


def test_an_unknown_operating_point_offers_the_known_ones(client: TestClient) -> None:
    answer = client.post("/v1/predict?operating_point=fpr_5pc", files=files(("x.png", plain_png(0))))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert "did you mean 'fpr_5pct'?" in answer.json()["error"]["message"]


def test_warnings_have_a_word_and_a_sentence(client: TestClient) -> None:
    tiny = encode_image(smooth_image(1, 40, 30), "jpeg", 20)
    found = client.post("/v1/predict", files=files(("x.jpg", tiny))).json()["images"][0]["warnings"]
    assert [one["code"] for one in found] == ["tiny_image", "upscaled", "heavy_recompression"]
    assert [one["text"] for one in found] == [WARNINGS[one["code"]] for one in found]


def test_a_bad_image_does_not_touch_the_others(client: TestClient) -> None:
    answer = client.post("/v1/predict", files=files(("a.png", plain_png(0)), ("b.jpg", b"text"), ("", plain_png(255))))
    first, bad, last = answer.json()["images"]
    assert answer.status_code == 200
    assert (first["logit"], last["logit"]) == (pytest.approx(-5), pytest.approx(5))
    assert bad["error"]["reason"] == "not_an_image"
    assert (bad["logit"], bad["score"], bad["decision"], bad["facts"]) == (None, None, None, None)


def test_only_bad_images_are_422_and_shown(client: TestClient) -> None:
    answer = client.post("/v1/predict", json={"images": [{"base64": ""}, {"base64": "!"}, {"url": "http://a.org/"}]})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "no_image_scored"
    reasons = [one["error"]["reason"] for one in answer.json()["images"]]
    assert reasons == ["empty", "bad_base64", "url_not_allowed"]


def test_provenance_on_demand(client: TestClient) -> None:
    target = io.BytesIO()
    image = Image.fromarray(smooth_image(2))
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 96x80")
    image.save(target, "PNG", pnginfo=info)
    sent = files(("x.png", target.getvalue()))
    assert client.post("/v1/predict", files=sent).json()["images"][0]["provenance"] is None
    found = client.post("/v1/predict?provenance=true", files=sent).json()["images"][0]["provenance"]
    assert found["marks"]
    assert found["c2pa"]["state"] == "absent"


def test_explain_gives_a_grid_of_differences(client: TestClient) -> None:
    pixels = np.zeros((80, 80, 3), np.uint8)
    pixels[:40, :40] = 255
    sent = files(("x.png", encode_image(pixels, "png", None)))
    answer = client.post("/v1/explain?grid=2", files=sent).json()
    assert (answer["rows"], answer["cols"], answer["name"]) == (2, 2, "x.png")
    delta = np.array(answer["delta"])
    assert delta[0, 0] > 0  # hiding the bright quarter lowers the logit
    assert (delta.ravel()[1:] < 0).all()
    assert answer["baseline_logit"] == pytest.approx(10 * (0.25 - 0.5), abs=0.05)


@pytest.mark.parametrize(("query", "n"), [("?grid=0", 1), ("?grid=17", 1), ("?grid=x", 1), ("", 2), ("?gird=2", 1)])
def test_explain_refuses_what_it_cannot_do(client: TestClient, query: str, n: int) -> None:
    answer = client.post(f"/v1/explain{query}", files=files(*[("x.png", plain_png(1))] * n))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_explain_of_a_bad_image_says_why(client: TestClient) -> None:
    answer = client.post("/v1/explain", files=files(("x.png", b"no")))
    assert answer.status_code == 422
    assert answer.json()["images"][0]["error"]["reason"] == "not_an_image"


def test_hostile_images_each_get_what_they_deserve_and_harm_nobody(client: TestClient) -> None:
    images = hostile_images(large=False)[:90]
    assert {one.fate for one in images} > {SCORED, EITHER}
    good = plain_png(200)
    for start in range(0, len(images), 15):
        group = images[start : start + 15]
        sent = files(*((one.name, one.data) for one in group), ("good.png", good))
        answer = client.post("/v1/predict", files=sent)
        assert answer.status_code == 200
        *found, last = answer.json()["images"]
        assert last["logit"] == pytest.approx(10 * (200 / 255 - 0.5), abs=1e-3)  # float32 sums differ with the batch
        for one, image in zip(found, group, strict=True):
            assert (one["error"] is None) != (one["logit"] is None), image.name
            if image.fate != EITHER:
                assert (one["error"] is None) == (image.fate == SCORED), (image.name, one["error"])


def test_pixels_are_limited_before_decoding(client: TestClient) -> None:
    target = io.BytesIO()
    Image.new("L", (2000, 2000)).save(target, "PNG")
    answer = client.post("/v1/predict", files=files(("x.png", target.getvalue()), ("y.png", plain_png(0))))
    assert answer.json()["images"][0]["error"]["reason"] == "too_many_pixels"


class Failing(Predictor):
    """Fails, or gives no number, for dark pictures."""

    value = 0.0

    def logits(self, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logit_B, score_B = super().logits(views)
        if (logit_B < -4).any():
            if np.isnan(self.value):
                return np.where(logit_B < -4, np.nan, logit_B), score_B
            raise RuntimeError("out of scratch memory for C:/secret/name.jpg")
        return logit_B, score_B


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_failure_of_the_model_is_an_error_of_its_image(
    bundle: object, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    model = Failing(bundle, threads=1)  # type: ignore[arg-type]
    model.value = value
    with TestClient(create_app(model)) as client:
        for _ in range(3):
            sent = files(("a.png", plain_png(255)), ("b.png", plain_png(0)), ("c.png", plain_png(200)))
            answer = client.post("/v1/predict", files=sent)
            assert answer.status_code == 200
            errors = [one["error"] and one["error"]["reason"] for one in answer.json()["images"]]
            assert errors == [None, "model_failed", None]
        assert client.get("/readyz").status_code == 200
        assert "secret" not in answer.text


def test_the_example_of_the_schema_works(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["examples"]["base64"]["value"]
    answer = client.post("/v1/predict", json=example)
    assert answer.status_code == 200
    assert answer.json()["images"][0]["facts"]["width_px"] == 2
