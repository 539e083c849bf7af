from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from forgery_det.cli import main
from synth.service import brightness_bundle, plain_png


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness_bundle(tmp_path_factory.mktemp("bright_cli"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(41):
        path = folder / f"{number % 3}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(plain_png(6 * number, 66))
    (folder / "0" / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "0" / "notes.txt").write_text("left out")
    return folder


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_suffix_chooses_the_format(bundle: Path, images: Path, tmp_path: Path) -> None:
    assert main(["predict", str(bundle), str(images), "--out", str(tmp_path / "a.jsonl"), "--threads", "1"]) == 1
    rows = read(tmp_path / "a.jsonl")
    assert len(rows) == 42
    assert [r["path"] for r in rows] == sorted(str(r["path"]) for r in rows)
    assert sum(r["error"] is not None for r in rows) == 1
    assert main(["predict", str(bundle), str(images), "--out", str(tmp_path / "a.csv"), "--threads", "1"]) == 1
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 43


def test_the_same_command_again_does_nothing_and_answers_the_same(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(bundle), str(images / "1"), "--out", str(tmp_path / "a.csv")]
    assert main(words) == 0
    before = (tmp_path / "a.csv").stat().st_mtime_ns
    assert main(words) == 0
    assert (tmp_path / "a.csv").stat().st_mtime_ns == before
    assert f"{tmp_path / 'a.csv'}: 14 rows" in capsys.readouterr().err


def test_another_command_into_the_same_file_is_bad_usage(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(bundle), str(images / "1"), "--out", str(tmp_path / "a.csv")]
    assert main(words) == 0
    assert main([*words, "--operating_point", "balanced"]) == 2
    assert "with operating_point = 'fpr_5pct', got 'balanced'" in capsys.readouterr().err


def test_standard_input_names_files(
    bundle: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(path) for path in sorted((images / "2").iterdir())]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(names) + "\n"))
    assert main(["predict", str(bundle), "-", "--format", "jsonl"]) == 0
    printed = capsys.readouterr()
    assert [json.loads(line)["path"] for line in printed.out.splitlines()] == names
    assert "decision `generated` at logit >= 1.0000 (fpr_5pct, fitted on val)" in printed.err


def test_what_was_left_out_and_failed_is_counted(
    bundle: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(bundle), str(images / "0")]) == 1
    printed = capsys.readouterr()
    assert f"1 files in folders were left out: no image suffix (first: {images}/0/notes.txt)" in printed.err
    assert "1 files could not be scored; see their `error`." in printed.err
    assert printed.out.splitlines()[0].split() == ["path", "logit", "score", "decision", "error", "warnings"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "scores.txt"], "Expected --format csv or jsonl, or an --out that ends in .csv or .jsonl"),
        (["--out", "scores.csv", "--format", "table"], "Expected csv or jsonl for a file that can be resumed"),
        (["--operating_point", "fpr_9pct"], "Unknown operating point 'fpr_9pct'"),
        (["--model_format", "openvino"], "Unknown format 'openvino': Known: onnx."),
        (["--batch_size", "0"], "Expected `batch_size` of at least 1, got 0"),
        (["--executor", "ray", "--workers", "0"], "Expected `workers` of at least 1, got 0"),
    ],
)
def test_bad_usage(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(bundle), str(images), *words]) == 2
    assert message in capsys.readouterr().err


def _command(bundle: Path, images: Path, out: Path, *more: str) -> list[str]:
    program = "import sys; from forgery_det.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["predict", str(bundle), str(images), "--out", str(out), "--threads", "1", "--batch_size", "4", *more]
    return [sys.executable, "-c", program, *words]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_file(bundle: Path, images: Path, tmp_path: Path) -> None:
    assert main(_command(bundle, images, tmp_path / "whole.csv")[3:]) == 1
    started = time.monotonic()
    assert subprocess.run(_command(bundle, images, tmp_path / "timed.csv"), check=False).returncode == 1
    usual_s = time.monotonic() - started
    rng = random.Random(11)
    cut_short = 0
    for attempt in range(4):
        out = tmp_path / f"killed-{attempt}.csv"
        for _ in range(2):
            process = subprocess.Popen(_command(bundle, images, out), stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.3, 1.0) * usual_s)
            process.send_signal(signal.SIGKILL)
            cut_short += process.wait() == -signal.SIGKILL
        assert subprocess.run(_command(bundle, images, out), stderr=subprocess.DEVNULL, check=False).returncode == 1
        assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert cut_short >= 2


@pytest.mark.slow
def test_ray_workers_write_the_same_file(bundle: Path, images: Path, tmp_path: Path) -> None:
    assert main(_command(bundle, images, tmp_path / "local.csv")[3:]) == 1
    words = _command(bundle, images, tmp_path / "ray.csv", "--executor", "ray", "--workers", "2")
    # A short folder: Ray's sockets lie in it, and their paths may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment = os.environ | {"RAY_TMPDIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
