from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgery_det.core.errors import ConfigError
from forgery_det.evaluation.audit_file import read_audit
from forgery_det.reporting.data import AuditRow


def write(folder: Path, content: Any) -> Path:
    path = folder / "audit.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_findings_are_read_from_a_file_or_its_folder(tmp_path: Path) -> None:
    full = {
        "name": "file_facts", "slice": "generator=x", "level": "fail", "value": 0.9, "ci_low": 0.8, "ci_high": 1,
        "limit": 0.6, "n": 40, "detail": "Sizes differ.", "waived": "we know", "rows": [],
    }  # fmt: skip
    short = {"name": "duplicates", "level": "not_estimable", "value": None}
    path = write(tmp_path, {"findings": [full, short]})
    expected = (
        AuditRow("file_facts", "generator=x", "fail", 0.9, 0.8, 1.0, 0.6, 40, "Sizes differ.", "we know"),
        AuditRow("duplicates", "overall", "not_estimable", None, None, None, None, None, ""),
    )
    assert read_audit(path) == expected
    assert read_audit(tmp_path) == expected


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "Expected JSON, got something else"),
        ([], "Expected an object with a list `findings`"),
        ({"findings": {}}, "Expected an object with a list `findings`"),
        ({"findings": ["x"]}, r"Expected a finding with `name` and `level`, got 'x' \(finding 0"),
        ({"findings": [{"name": "a"}]}, "Expected a finding with `name` and `level`"),
        ({"findings": [{"name": "a", "level": "failed"}]}, "Unknown level 'failed'.*did you mean 'fail'"),
        (
            {"findings": [{"name": "a", "level": "pass", "value": "high"}]},
            "Expected `value` of finding 'a' to be a number",
        ),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        read_audit(write(tmp_path, content))


def test_a_missing_audit_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Make one with `forgery-det audit`"):
        read_audit(tmp_path)
