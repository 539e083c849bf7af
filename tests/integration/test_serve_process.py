"""`forgery-det serve` as a real process: load, abuse, its own OpenAPI schema, signals. Slow: it is wall-clock work."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from synth.service import FORM_TYPE, brightness_bundle, form, plain_png

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SERVE = [sys.executable, "-c", "from forgery_det.cli import main; raise SystemExit(main())", "serve"]


@contextmanager
def serving(bundle: Path, *options: str, key: str = "") -> Iterator[tuple[int, subprocess.Popen[bytes], Path]]:
    """The port of a running service, its process, and its log: a file, since a pipe that nobody reads fills up."""
    environment = os.environ | {"FORGERY_DET_API_KEY": key}
    log = bundle.parent / "serve.log"
    with log.open("wb") as target:
        command = [*SERVE, str(bundle), "--port", "0", "--threads", "1", *options]
        process = subprocess.Popen(command, stderr=target, env=environment)
    try:
        for _ in range(600):
            if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text()):
                yield int(found.group(1)), process, log
                return
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        pytest.fail(f"the service did not start: {log.read_text()}")
    finally:
        process.kill()
        process.wait()


def test_load_and_abuse_harm_nobody(tmp_path: Path) -> None:
    """The benchmark fails by itself when a request is not answered, a good one is harmed, or memory grows."""
    bundle = brightness_bundle(tmp_path / "bundle")
    command = [sys.executable, "benchmarks/serve_load.py", str(bundle), "--seconds", "1", "--rounds", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch loaded: False" in done.stdout
    # An endless body ends by its bytes, or by its time where the machine is busy.
    for told in ("40 aborted upload: left", "10 slow head: 408", "10 slow body: 408", "4 endless body: 4(13|08)"):
        assert re.search(told, done.stdout), done.stdout


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    # A string that fits the schema need not be a picture, and 422 is then right: that one check cannot apply.
    options = [
        "--exclude-checks",
        "positive_data_acceptance",
        "--max-examples",
        "30",
        "--max-time",
        "40",
        "--seed",
        "7",
        "--no-color",
    ]
    with serving(brightness_bundle(tmp_path / "bundle")) as (port, process, log):
        url = f"http://127.0.0.1:{port}/openapi.json"
        command = [Path(sys.executable).with_name("schemathesis"), "run", url, *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "6 passed" in done.stdout
        assert process.poll() is None
        assert '"level": "error"' not in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_a_key_is_asked_for(tmp_path: Path, number: signal.Signals) -> None:
    body, key = form([("white.png", plain_png(255))]), "a-key-of-twenty-chars"
    with serving(brightness_bundle(tmp_path / "bundle"), key=key) as (port, process, log):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for headers, status in (({}, 401), ({"X-API-Key": key}, 200)):
            connection.request("POST", "/v1/predict", body, {"Content-Type": FORM_TYPE, **headers})
            answer = connection.getresponse()
            value = json.loads(answer.read())
            assert answer.status == status
        connection.close()
        assert value["images"][0]["logit"] == pytest.approx(5, abs=1e-3)
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "onnxruntime" in maps
        process.send_signal(number)
        assert process.wait(20) == 0
        assert key not in log.read_text()


def test_a_failed_self_test_and_a_taken_port_end_with_code_1(tmp_path: Path) -> None:
    bundle = brightness_bundle(tmp_path / "bundle")
    with serving(bundle) as (port, _, _):
        command = [*SERVE, str(bundle), "--port", str(port)]
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 1
    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    golden[0]["logit"] += 0.1
    (bundle / "golden" / "golden.json").write_text(json.dumps(golden))
    done = subprocess.run([*SERVE, str(bundle), "--port", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Expected logit" in done.stderr
