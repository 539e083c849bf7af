"""A fresh environment made of `docker/requirements-serve.txt` alone: no torch, and the golden logits come out.

These are the steps of `docker/Dockerfile.serve`, so the test stands in for the image where none can be built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "docker" / "requirements-serve.txt"


def test_requirements_are_pinned_by_hash_without_torch_and_without_addresses() -> None:
    text = REQUIREMENTS.read_text()
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", text, re.MULTILINE))
    assert {"numpy", "pillow", "onnxruntime", "fastapi", "jsonargparse"} <= set(pinned)
    assert not {"torch", "torchvision", "polars", "scipy", "timm", "opencv-python-headless"} & set(pinned)
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text
    # The versions are those that the other tests run on.
    tested = set(re.findall(r"^([a-z0-9.-]+==[^ ;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert {f"{name}=={version}" for name, version in pinned.items()} <= tested


@pytest.mark.slow
@pytest.mark.network
def test_a_fresh_environment_serves(tmp_path: Path, tiny_bundle: Path) -> None:
    python = _fresh_environment(tmp_path)
    bundle = str(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=clean, timeout=120)

    found = run(
        str(python), "-c", "import importlib.util as u; print([m for m in ('torch', 'polars') if u.find_spec(m)])"
    )
    assert found.stdout.strip() == "[]", found.stderr
    program = str(python.parent / "forgery-det")
    tested = run(program, "self-test", bundle)
    assert tested.returncode == 0, tested.stderr
    assert tested.stdout.count("passed: 8 golden images") == 2
    predicted = run(program, "predict", bundle, f"{bundle}/golden", "--format", "jsonl")
    assert predicted.returncode == 0, predicted.stderr
    golden = {entry["file"]: entry["logit"] for entry in json.loads((tiny_bundle / "golden/golden.json").read_text())}
    rows = [json.loads(line) for line in predicted.stdout.splitlines()]
    assert {Path(row["path"]).name: row["logit"] for row in rows} == pytest.approx(golden, abs=1e-4)
    helped = run(program, "serve", "--help")
    assert helped.returncode == 0, helped.stderr
    assert "--api_key_file" in helped.stdout
    code = f"from forgery_det import Predictor; print(Predictor({bundle!r}).self_test().passed)"
    assert run(str(python), "-c", code).stdout.strip() == "True"


def _fresh_environment(folder: Path) -> Path:
    """Install the requirements and the project's wheel, by uv where `make` fetched it, else by pip."""
    wheels = folder / "wheels"
    _must(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT)
    (wheel,) = wheels.glob("forgery_det-*.whl")
    python = folder / "venv" / "bin" / "python"
    uv = ROOT / ".uv" / "bin" / "uv"
    if uv.exists():
        _must(uv, "venv", "--quiet", "--python", sys.executable, folder / "venv")
        install = (uv, "pip", "install", "--quiet", "--python", python)
    else:
        _must(sys.executable, "-m", "venv", folder / "venv")
        install = (python, "-m", "pip", "install", "--quiet")
    _must(*install, "--require-hashes", "-r", REQUIREMENTS)
    _must(*install, "--no-deps", wheel)
    return python


def _must(*words: str | Path) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
