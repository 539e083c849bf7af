from __future__ import annotations

import csv
import io
import json
import os

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.core.prediction_rows import BUNDLE_COLUMNS, COLUMNS, FORMATS, PredictionRow, format_rows

ROWS = [
    PredictionRow('a, "b".png', 1.25, 0.777, "generated"),
    PredictionRow("new\nline\x1b[2J.png", None, None, None, "truncated: Expected more"),
    PredictionRow(os.fsdecode(b"caf\xe9.png"), -0.1, 0.475, "n/a"),
]


def test_csv_reads_back() -> None:
    text = "\n".join(format_rows(ROWS, "csv"))
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(read[0]) == COLUMNS == ("path", "logit", "score", "decision", "error")
    assert read[0] == {"path": 'a, "b".png', "logit": "1.25", "score": "0.777", "decision": "generated", "error": ""}
    assert read[1]["path"] == "new\nline\x1b[2J.png"
    assert (read[1]["logit"], read[1]["decision"]) == ("", "")
    text.encode("utf-8")


def test_json_lines_read_back() -> None:
    lines = list(format_rows(ROWS, "jsonl"))
    read = [json.loads(line) for line in lines]
    assert [tuple(row) for row in read] == [COLUMNS] * 3
    assert [row["path"] for row in read] == [row.path for row in ROWS]  # undecodable names included
    assert read[1]["logit"] is None


def test_table_is_one_printable_line_a_row() -> None:
    lines = list(format_rows(ROWS, "table"))
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert "new\\nline\\x1b[2J.png" in lines[2]
    assert "truncated: Expected more" in lines[2]
    "\n".join(lines).encode("utf-8")


@pytest.mark.parametrize("style", FORMATS)
def test_rows_are_written_as_they_come(style: str) -> None:
    taken: list[int] = []

    def rows():
        for row in ROWS:
            taken.append(1)
            yield row

    lines = format_rows(rows(), style)
    if style != "jsonl":
        next(lines)
        assert taken == []
    next(lines)
    assert taken == [1]


def test_unknown_format() -> None:
    with pytest.raises(ConfigError, match="Unknown format 'cvs': did you mean 'csv'"):
        format_rows([], "cvs")


WARNED = PredictionRow("a.png", 0.5, 0.6, "uncertain", None, ("tiny_image", "upscaled"))


def test_bundles_add_their_warnings_as_the_last_column() -> None:
    assert (*COLUMNS, "warnings") == BUNDLE_COLUMNS
    assert list(format_rows([WARNED], "csv", BUNDLE_COLUMNS)) == [
        "path,logit,score,decision,error,warnings",
        "a.png,0.5,0.6,uncertain,,tiny_image upscaled",
    ]
    (line,) = format_rows([WARNED], "jsonl", BUNDLE_COLUMNS)
    assert json.loads(line)["warnings"] == ["tiny_image", "upscaled"]
    assert list(format_rows([WARNED], "table", BUNDLE_COLUMNS))[1].endswith("  tiny_image upscaled")
    assert "tiny_image" not in "".join(format_rows([WARNED], "table"))


def test_rows_without_a_header_continue_a_file() -> None:
    assert list(format_rows([WARNED], "csv", COLUMNS, header=False)) == ["a.png,0.5,0.6,uncertain,"]
