from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.prediction_rows import BUNDLE_COLUMNS, COLUMNS, PredictionRow, format_rows
from forgery_det.core.row_file import RowFile, RowFileSpec

NAMES = [
    "a.png", 'quo"te.png', "com,ma.png", "new\nline.png", 'both"\n".png', os.fsdecode(b"caf\xe9.png"), "cr\r.png",
    "z.png", "ü.png", "last.png", "b.png",
]  # fmt: skip


def row(path: str) -> PredictionRow:
    if "quo" in path or "last" in path:
        return PredictionRow(path, None, None, None, "truncated: Expected more,\ngot less")
    value = len(path) / 7
    return PredictionRow(path, value, 0.25, "uncertain", None, ("tiny_image", "upscaled"))


def spec(folder: Path, style: str, **settings: object) -> RowFileSpec:
    return RowFileSpec(folder / f"scores.{style}", style, BUNDLE_COLUMNS, 3, settings)


def scored(paths: Iterator[str], seen: list[str]) -> Iterator[PredictionRow]:
    for path in paths:
        seen.append(path)
        yield row(path)


def run(folder: Path, style: str, names: list[str] = NAMES, *, stop_after: int | None = None) -> list[str]:
    """Score the names into the file; return those that were scored. `stop_after` rows it stops as if killed."""
    seen: list[str] = []
    with RowFile(spec(folder, style)) as file:
        if file.finished:
            return seen
        for _ in file.write(scored(file.remaining(names), seen)):
            if stop_after is not None and file.n_rows >= stop_after:
                return seen
        file.finish()
    return seen


def whole(style: str) -> bytes:
    return "".join(f"{line}\n" for line in format_rows(map(row, NAMES), style, BUNDLE_COLUMNS)).encode()


@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_a_file_is_what_the_rows_say(tmp_path: Path, style: str) -> None:
    assert run(tmp_path, style) == NAMES
    assert (tmp_path / f"scores.{style}").read_bytes() == whole(style)
    record = json.loads((tmp_path / f"scores.{style}.run.json").read_text())
    assert record["outcome"] == {"rows": 11, "failed": 2}
    assert not (tmp_path / f"scores.{style}.part").exists()


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_a_kill_at_any_byte_ends_in_the_same_file(
    tmp_path: Path, style: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hundreds of runs; waiting for the disk in each would be all that they do.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    run(tmp_path / "begun", style, stop_after=9)
    written = (tmp_path / "begun" / f"scores.{style}.part").read_bytes()
    settings = (tmp_path / "begun" / f"scores.{style}.run.json").read_bytes()
    assert whole(style).startswith(written)
    folder = tmp_path / "killed"
    folder.mkdir()
    part = folder / f"scores.{style}.part"
    kept = []
    for n_bytes in [*range(0, len(written), step), len(written)]:
        (folder / f"scores.{style}").unlink(missing_ok=True)
        part.write_bytes(written[:n_bytes])
        (folder / f"scores.{style}.run.json").write_bytes(settings)
        seen = run(folder, style)
        assert (folder / f"scores.{style}").read_bytes() == whole(style)
        assert seen == NAMES[len(NAMES) - len(seen) :]
        kept.append(len(NAMES) - len(seen))
    # Whole batches of three are kept, and nothing is scored again beyond the batch that was cut.
    assert sorted(set(kept)) == [0, 3, 6, 9]
    assert kept == sorted(kept)


def test_a_kill_before_the_last_rename_is_mended(tmp_path: Path) -> None:
    run(tmp_path, "csv")
    (tmp_path / "scores.csv").rename(tmp_path / "scores.csv.part")
    assert run(tmp_path, "csv") == []
    assert (tmp_path / "scores.csv").read_bytes() == whole("csv")


def test_a_finished_file_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path, "csv")
    before = (tmp_path / "scores.csv").stat().st_mtime_ns
    assert run(tmp_path, "csv") == []
    assert (tmp_path / "scores.csv").stat().st_mtime_ns == before
    with RowFile(spec(tmp_path, "csv")) as file:
        assert (file.n_rows, file.n_failed, file.finished) == (11, 2, True)


def test_counts_go_on_after_a_resume(tmp_path: Path) -> None:
    run(tmp_path, "jsonl", stop_after=6)
    run(tmp_path, "jsonl")
    assert json.loads((tmp_path / "scores.jsonl.run.json").read_text())["outcome"] == {"rows": 11, "failed": 2}


@pytest.mark.parametrize("style", ["csv", "jsonl"])
@pytest.mark.parametrize("names", [["new.png", *NAMES], NAMES[:2], [*NAMES[:4], "other.png", *NAMES[5:]]])
def test_other_files_than_before_are_an_error(tmp_path: Path, style: str, names: list[str]) -> None:
    run(tmp_path, style, stop_after=6)
    with pytest.raises(ConfigError, match=r"Expected the same files as when .* was begun, got .* delete"):
        run(tmp_path, style, names)


def test_other_settings_are_an_error(tmp_path: Path) -> None:
    run(tmp_path, "csv", stop_after=3)
    other = RowFileSpec(tmp_path / "scores.csv", "csv", BUNDLE_COLUMNS, 4, {})
    with pytest.raises(ConfigError, match=r"with batch_size = 3, got 4 .*Name another file"), RowFile(other):
        pass
    more = spec(tmp_path, "csv", model="abc")
    with pytest.raises(ConfigError, match="with model = None, got 'abc'"), RowFile(more):
        pass


def test_files_of_others_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"Expected a new file, or one that has its \.run\.json beside it"):
        run(tmp_path, "csv")
    assert (tmp_path / "scores.csv").read_text() == "mine"


def test_a_damaged_record_is_an_error(tmp_path: Path) -> None:
    run(tmp_path, "csv", stop_after=3)
    (tmp_path / "scores.csv.run.json").write_text("{")
    with pytest.raises(ConfigError, match="Expected the settings of"):
        run(tmp_path, "csv")


def test_only_one_process_writes(tmp_path: Path) -> None:
    with RowFile(spec(tmp_path, "csv")):
        found: list[BaseException] = []

        def second() -> None:
            try:
                RowFile(spec(tmp_path, "csv")).__enter__()
            except ConfigError as error:
                found.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "Expected to be the only process that writes" in str(found[0])


def test_no_paths_make_an_empty_table(tmp_path: Path) -> None:
    assert run(tmp_path, "csv", []) == []
    assert (tmp_path / "scores.csv").read_text() == ",".join(BUNDLE_COLUMNS) + "\n"


def test_a_table_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected csv or jsonl for a file that can be resumed, got 'table'"):
        RowFileSpec(tmp_path / "a", "table", COLUMNS, 3, {})


def test_rows_stream_in_and_out(tmp_path: Path) -> None:
    """Neither the rows nor the paths are held: at most a batch is read ahead of what is in the file."""
    asked = 0

    def paths() -> Iterator[str]:
        nonlocal asked
        for number in range(3000):
            asked += 1
            yield f"{number}.png"

    with RowFile(spec(tmp_path, "csv")) as file:
        for count, _ in enumerate(file.write(map(row, file.remaining(paths())))):
            assert asked <= count + 3
            assert file.n_rows == asked
