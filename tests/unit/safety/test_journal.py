from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from forgery_det.safety.journal import WalkJournal, WalkRecord


def record(
    name: str, hops: tuple[str, ...] = ("input", "output"), usd: float | None = 0.5, **judges: str
) -> WalkRecord:
    items = tuple({"hop": hop, "cost_usd": None if hop == "input" else usd, "text": "灯塔\n"} for hop in hops)
    return WalkRecord(name, items, {judge: ({"verdict": verdict},) for judge, verdict in judges.items()})


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "work" / "walks.jsonl"
    with WalkJournal(path) as journal:
        journal.add(record("a", one="safe"))
        journal.add(record("b", ("input", "intermediate", "output"), None))
        assert (journal.requests, journal.spent_usd) == (3, 0.5)
    with WalkJournal(path) as again:
        assert again.records == {
            "a": record("a", one="safe"),
            "b": record("b", ("input", "intermediate", "output"), None),
        }
        assert (again.requests, again.spent_usd) == (3, 0.5)


def test_a_later_line_of_a_walk_replaces_it_and_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "walks.jsonl"
    with WalkJournal(path) as journal:
        journal.add(record("a", one="safe"))
        journal.add(record("a", one="safe", two="unsafe"))
    with WalkJournal(path) as again:
        assert set(again.records["a"].judgements) == {"one", "two"}
        assert (again.requests, again.spent_usd) == (1, 0.5)


@pytest.mark.parametrize("cut", [1, 10, -2, -1])
def test_a_half_written_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "walks.jsonl"
    with WalkJournal(path) as journal:
        journal.add(record("a"))
        whole = path.read_bytes()
        journal.add(record("b"))
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line[:cut])
    with WalkJournal(path) as again:
        assert set(again.records) == {"a"}
        assert path.read_bytes() == whole
        again.add(record("c"))
    with WalkJournal(path) as third:
        assert set(third.records) == {"a", "c"}


def test_bytes_of_a_lost_block_end_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "walks.jsonl"
    with WalkJournal(path) as journal:
        journal.add(record("a"))
    whole = path.read_bytes()
    for junk in (b"\0" * 512 + b"\n", b"[1]\n", b"\xff\xfe\n"):
        path.write_bytes(whole + junk)
        with WalkJournal(path) as again:
            assert set(again.records) == {"a"}
        assert path.read_bytes() == whole


def test_failures_are_counted_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "walks.jsonl"
    with WalkJournal(path) as journal:
        journal.fail(record("a", usd=0.25))
        assert set(journal.failures) == {"a"}
        assert (journal.requests, journal.spent_usd) == (1, 0.25)
    with WalkJournal(path) as again:
        assert not again.failures
        assert not again.records


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "walks.jsonl"
    with WalkJournal(path) as journal:
        threads = [
            Thread(target=lambda start=start: [journal.add(record(f"{start}-{i}")) for i in range(50)])
            for start in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with WalkJournal(path) as again:
        assert len(again.records) == 200
        assert again.requests == 200
