"""Around every request: key, request id, headers, logs without content, metrics, health, schema, page."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from forgery_det.core.errors import ConfigError
from forgery_det.serving.http.app import create_app
from forgery_det.serving.http.auth import MIN_LENGTH, read_keys
from forgery_det.serving.http.logs import LOGGER, JsonFormatter
from forgery_det.serving.http.problems import CODES
from forgery_det.serving.http.settings import FetchRules, ServeSettings
from forgery_det.serving.predictor import Predictor
from synth.service import plain_png

KEYS = (b"first-key-0123456789", b"second-key-0123456789")
SENT = [("files", ("grandmother.png", plain_png(0)))]


@pytest.fixture
def lines() -> Any:
    """Whatever the service logs, formatted."""

    class Kept(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.setFormatter(JsonFormatter())

        def emit(self, record: logging.LogRecord) -> None:
            self.lines.append(self.format(record))

    kept = Kept()
    LOGGER.addHandler(kept)
    before = LOGGER.level
    LOGGER.setLevel(logging.INFO)
    yield kept.lines
    LOGGER.removeHandler(kept)
    LOGGER.setLevel(before)


def test_the_key_opens_the_api(predictor: Predictor) -> None:
    first, second = (key.decode() for key in KEYS)
    wrong = [{}, {"X-API-Key": ""}, {"X-API-Key": first[1:]}, {"Authorization": f"Basic {first}"}]
    wrong += [{"Authorization": f"Bearer {value}"} for value in (first[:-1], first + "x", "", first.upper())]
    right = [{"Authorization": f"Bearer {first}"}, {"Authorization": f"bearer {second}"}, {"X-API-Key": first}]
    with TestClient(create_app(predictor, ServeSettings(api_keys=KEYS))) as client:
        for headers in (*wrong, *right):
            is_right = headers in right
            answer = client.post("/v1/predict", files=SENT, headers=headers)
            assert answer.status_code == (200 if is_right else 401), headers
            assert client.get("/metrics", headers=headers).status_code == answer.status_code
            assert client.get("/v1/nothing", headers=headers).status_code == (404 if is_right else 401)
            if not is_right:
                assert answer.headers["www-authenticate"].startswith("Bearer")
                assert answer.json()["error"]["code"] == "invalid_api_key"
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        assert client.get("/openapi.json").json()["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# rotated in May\nold-key-0123456789\n\nnew-key-0123456789\n")
    environment = {"FORGERY_DET_API_KEY": " from-environment-1 "}
    assert read_keys(None, {}) == ()
    assert read_keys(file, environment) == (b"from-environment-1", b"old-key-0123456789", b"new-key-0123456789")
    for text, problem in (
        ("# none\n", "got none"),
        ("short\n", f"at least {MIN_LENGTH}"),
        ("with a space in it\n", "print"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=problem) as refusal:
            read_keys(file, {})
        assert "short" not in str(refusal.value)
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        read_keys(tmp_path / "missing", {})


def test_logs_tell_what_happened_and_nothing_about_the_picture(predictor: Predictor, lines: list[str]) -> None:
    settings = ServeSettings(fetch=FetchRules(hosts=("*.secret-host.test",)))
    with TestClient(create_app(predictor, settings)) as client:
        client.post("/v1/predict", files=SENT, headers={"X-Request-ID": "job-7"})
        client.post("/v1/predict", files=[("files", ("grandmother.png", b"words of a letter"))])
        client.post("/v1/predict", json={"images": [{"url": "https://a.secret-host.invalid/x?token=1"}]})
        client.post(
            "/v1/predict", content=b'{"images": "words of a letter"}', headers={"Content-Type": "application/json"}
        )
        client.get("/metrics")
    first, second, third, fourth = map(json.loads, lines)
    assert first.items() >= {
        "event": "request", "request_id": "job-7", "method": "POST", "route": "/v1/predict", "status": 200,
        "n_images": 1, "n_failed": 0,
    }.items()  # fmt: skip
    assert set(first["timings_ms"]) == {"upload_ms", "queue_ms", "decode_ms", "model_ms", "total_ms"}
    assert first["bytes_in"] > 0
    assert (second["status"], second["code"], second["n_failed"]) == (422, "no_image_scored", 1)
    assert (third["status"], fourth["code"]) == (422, "invalid_request")
    for word in ("grandmother", "secret-host", "token", "words of"):
        assert word not in "".join(lines)


def test_names_are_logged_when_asked_for(predictor: Predictor, lines: list[str]) -> None:
    with TestClient(create_app(predictor, ServeSettings(log_names=True))) as client:
        client.post("/v1/predict", files=SENT)
    assert json.loads(lines[0])["names"] == ["grandmother.png"]


def test_a_defect_is_500_with_a_request_id_and_no_text_of_the_error(
    predictor: Predictor, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("grandmother.png is in here")

    monkeypatch.setattr("forgery_det.serving.http.routes.timings", broken)
    with TestClient(create_app(predictor)) as client:
        answer = client.post("/v1/predict", files=SENT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        defect = json.loads(lines[0])
        assert defect["request_id"] == answer.json()["request_id"] == answer.headers["x-request-id"]
        assert defect["error"] == "RuntimeError"
        assert any("broken" in frame for frame in defect["trace"])
        assert "grandmother" not in "".join(lines) + answer.text
        monkeypatch.undo()
        assert client.post("/v1/predict", files=SENT).status_code == 200


def test_request_ids_are_echoed_if_plain(predictor: Predictor) -> None:
    with TestClient(create_app(predictor)) as client:
        assert client.get("/healthz", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
        for odd in ("a b", "x" * 65, '"}{"'):
            assert len(client.get("/healthz", headers={"X-Request-ID": odd}).headers["x-request-id"]) == 32


def test_metrics_count_what_happened(predictor: Predictor) -> None:
    with TestClient(create_app(predictor)) as client:
        client.post("/v1/predict", files=[*SENT, ("files", ("x", b"text"))])
        client.post("/v1/predict", files=[("files", ("x", b""))])
        client.get("/made/up/path")
        text = client.get("/metrics").text
    for line in (
        'forgery_det_requests_total{route="/v1/predict",status="200"} 1.0',
        'forgery_det_requests_total{route="/v1/predict",status="422"} 1.0',
        'forgery_det_requests_total{route="other",status="404"} 1.0',
        'forgery_det_refusals_total{code="no_image_scored"} 1.0',
        'forgery_det_images_total{outcome="real"} 1.0',
        'forgery_det_images_total{outcome="error"} 2.0',
        'forgery_det_image_errors_total{reason="empty"} 1.0',
        'forgery_det_image_errors_total{reason="not_an_image"} 1.0',
        "forgery_det_batch_images_sum 1.0",
        "forgery_det_decode_seconds_count 1.0",
        "forgery_det_images_in_flight 0.0",
        "forgery_det_body_bytes 0.0",
        "forgery_det_decoded_bytes 0.0",
        'forgery_det_model_info{format="onnx",name="brightness",version="0123456789ab"} 1.0',
        "process_resident_memory_bytes",
    ):
        assert line in text, line
    assert "made" not in text


def test_security_headers_are_everywhere(predictor: Predictor) -> None:
    with TestClient(create_app(predictor)) as client:
        for path in ("/", "/docs", "/healthz", "/v1/model", "/nothing"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        assert client.get("/v1/model").headers["cache-control"] == "no-store"


def test_wrong_paths_and_methods(predictor: Predictor) -> None:
    paths = {
        405: (("GET", "/v1/predict"), ("DELETE", "/v1/model"), ("POST", "/"), ("PUT", "/healthz")),
        404: (("GET", "/nothing"), ("GET", "/..%2f..%2fapp.py"), ("GET", "/../app.py"), ("GET", "/.hidden")),
    }
    with TestClient(create_app(predictor)) as client:
        for status, requests in paths.items():
            for method, path in requests:
                answer = client.request(method, path)
                assert answer.status_code == status, path
                assert answer.json()["error"]["code"] == {404: "not_found", 405: "method_not_allowed"}[status]
                assert ("allow" in answer.headers) == (status == 405)


def test_health_and_the_end_of_the_lifespan(predictor: Predictor) -> None:
    app = create_app(predictor)
    early = TestClient(app)
    assert early.get("/readyz").status_code == 503
    assert early.post("/v1/predict", files=SENT).status_code == 503
    with TestClient(app) as client:
        assert client.get("/readyz").json() == {"status": "ok"}
        app.state.service.drain.is_on = True
        assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 503)
    assert early.get("/healthz").status_code == 503


def test_the_model_and_its_limits(predictor: Predictor) -> None:
    with TestClient(create_app(predictor)) as client:
        answer = client.get("/v1/model").json()
    assert answer["operating_points"] == {"fpr_5pct": 1.0, "balanced": 0.0}
    assert answer["abstention"] == {"alpha": 0.1, "low": -0.5, "high": 0.5}
    assert answer["limits"]["max_images"] == 16
    assert answer["urls_allowed"] is False
    assert answer["bundle"]["licence"] == "CC0-1.0"


def test_docs_and_schema_name_every_endpoint_without_foreign_addresses(predictor: Predictor) -> None:
    with TestClient(create_app(predictor)) as client:
        page, schema = client.get("/docs").text, client.get("/openapi.json").json()
    for path in ("/v1/predict", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/metrics"):
        assert path in schema["paths"]
        assert path in page
    assert "://" not in page
    assert "<script" not in page
    assert set(schema["paths"]["/v1/predict"]["post"]["responses"]) == {
        "200", "400", "401", "408", "413", "415", "422", "429", "503", "504",
    }  # fmt: skip


def test_docs_list_every_code_and_limit() -> None:
    root = Path(__file__).parents[4]
    text = (root / "docs" / "serving.md").read_text(encoding="utf-8")
    from forgery_det.serving.http.settings import FetchRules, Limits

    names = [*CODES, *vars(Limits()), *vars(FetchRules())]
    assert [name for name in names if f"`{name}`" not in text and f".{name}`" not in text] == []
