from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forgery_det.core import artefacts


def test_an_error_leaves_the_old_file_and_no_leftover(tmp_path: Path) -> None:
    target = tmp_path / "value.txt"
    artefacts.write_text(target, "old")

    def write_half() -> None:
        with artefacts.atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        write_half()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["value.txt"]


def test_kill_in_the_middle_leaves_the_old_file_and_a_removable_leftover(tmp_path: Path) -> None:
    target = tmp_path / "value.txt"
    artefacts.write_text(target, "old")
    code = (
        "import sys, os, signal; from pathlib import Path; from forgery_det.core.artefacts import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    assert artefacts.remove_leftovers(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["value.txt"]


def test_written_files_have_the_rights_of_ordinary_files(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        artefacts.write_bytes(tmp_path / "deep/er/data.bin", b"\x00\x01")
    finally:
        os.umask(old)
    assert (tmp_path / "deep/er/data.bin").stat().st_mode & 0o777 == 0o644


def test_json_is_sorted_and_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    artefacts.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    artefacts.write_json(tmp_path / "b.json", {"a": "é", "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "é", "b": 1}


def test_sha256_of_the_published_example(tmp_path: Path) -> None:
    # FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert artefacts.sha256_bytes(b"abc") == expected
    assert artefacts.sha256_file(tmp_path / "abc") == expected


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artefacts.canonical_json({"x": float("nan")})
