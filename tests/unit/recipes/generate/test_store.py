from __future__ import annotations

import json
from pathlib import Path

import pytest

from forgery_det.core import artefacts
from forgery_det.core.errors import SourceError
from forgery_det.recipes.generate.job import Job, Outcome
from forgery_det.recipes.generate.store import JobStore

JOB = Job("toy", "command", "toy", "", "a fox", None, 7, {"steps": 2})


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("image", b"bytes", "", {"seed": 7, "response_id": "r1"}),
        Outcome("refused", None, "The model said no.", {"cost_usd": 0.01}),
        Outcome("blocked", None, "filter"),
        Outcome("failed", None, "timeout"),
    ],
)
def test_what_is_put_comes_back(store: JobStore, outcome: Outcome) -> None:
    store.put(JOB, outcome)
    assert store.get(JOB.job_id) == outcome
    assert store.is_done(JOB.job_id) == outcome.is_final


def test_the_json_tells_the_job_and_where_it_came_from(store: JobStore) -> None:
    store.put(JOB, Outcome("image", b"bytes", "", {"duration_s": 1.5}))
    entry = json.loads(store.path(JOB.job_id).read_text())
    assert entry["job"] == JOB.to_json()
    assert entry["provenance"] == {"duration_s": 1.5}
    assert entry["sha256"] == artefacts.sha256_bytes(b"bytes")


def test_a_final_outcome_is_not_replaced_by_a_failure(store: JobStore) -> None:
    store.put(JOB, Outcome("failed", None, "first"))
    store.put(JOB, Outcome("image", b"bytes"))
    store.put(JOB, Outcome("failed", None, "second"))
    assert store.get(JOB.job_id) == Outcome("image", b"bytes")


def test_a_kill_between_image_and_json_leaves_the_job_undone(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("forgery_det.recipes.generate.store.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        store.put(JOB, Outcome("image", b"bytes"))
    assert store.path(JOB.job_id).with_suffix(".bin").is_file()
    assert store.get(JOB.job_id) is None
    assert not store.is_done(JOB.job_id)


@pytest.mark.parametrize(
    ("suffix", "content"), [(".bin", b"byt"), (".bin", None), (".json", b"{"), (".json", b"[]"), (".json", b"\xff")]
)
def test_a_damaged_entry_is_made_anew(store: JobStore, suffix: str, content: bytes | None) -> None:
    store.put(JOB, Outcome("image", b"bytes"))
    path = store.path(JOB.job_id).with_suffix(suffix)
    path.unlink() if content is None else path.write_bytes(content)
    assert store.get(JOB.job_id) is None
    assert not store.is_done(JOB.job_id)


def test_other_bytes_of_the_same_size_are_noticed(store: JobStore) -> None:
    store.put(JOB, Outcome("image", b"bytes"))
    store.path(JOB.job_id).with_suffix(".bin").write_bytes(b"bytez")
    assert store.get(JOB.job_id) is None


def test_inputs_are_found_by_their_hash(store: JobStore) -> None:
    sha256 = store.put_input(b"photo")
    assert sha256 == artefacts.sha256_bytes(b"photo") == store.put_input(b"photo")
    assert store.read_input(sha256) == b"photo"


def test_a_missing_or_changed_input_says_where(store: JobStore) -> None:
    with pytest.raises(SourceError, match=r"Expected the input 0+ in the store, got: No such file"):
        store.read_input("0" * 64)
    sha256 = store.put_input(b"photo")
    store.input_path(sha256).write_bytes(b"other")
    with pytest.raises(SourceError, match=r"got others: delete .*inputs"):
        store.read_input(sha256)
    assert store.put_input(b"photo") == sha256
